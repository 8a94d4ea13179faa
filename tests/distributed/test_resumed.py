"""A run of two processes that is left and gone on with ends where one that was not left ends."""

from pathlib import Path

import pytest
import torch

from tests.distributed.ranks import run_ranks

SCRIPT = Path(__file__).with_name("train_resumed.py")


@pytest.mark.contract("design-7")
def test_design_7_two_processes_go_on_exactly_each_with_its_own_random_numbers(tmp_path):
    run_ranks(SCRIPT, str(tmp_path))
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in found["whole"].items():
            other = found["resumed"][name]
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
        whole, resumed = (dict(lines) for lines in found["lines"])
        assert whole == {**whole, **resumed}
        assert len(resumed) > 0 or rank == 1  # the first process logs
    state = torch.load(tmp_path / "left" / "checkpoints" / "last.ckpt", weights_only=True)
    ranks = state["loops"]["fit_loop"]["state_dict"]["run"]["ranks"]
    own = [one["generators"]["global"]["torch"] for one in ranks]
    assert len(own) == 2
    assert not torch.equal(*own)
