"""Two processes with half a batch each do what one with the whole batch does."""

from pathlib import Path

import pytest
import torch

from tests.distributed.ranks import run_ranks
from tests.distributed.train_memory import KINDS, train

SCRIPT = Path(__file__).with_name("train_memory.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    run_ranks(SCRIPT, str(path))
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_peers_20_loss_gradient_and_memory_are_those_of_one_process(folder, kind):
    states = [torch.load(folder / f"{kind}-{rank}.pt", weights_only=False) for rank in (0, 1)]
    expected = train(kind, 1, 12)
    assert len(expected["losses"]) == 8
    for state in states:
        assert state["losses"] == pytest.approx(expected["losses"], rel=1e-4, abs=1e-6)
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    for name in expected:
        if name.startswith("_memory.buffer"):
            assert torch.equal(states[0][name], states[1][name]), name
