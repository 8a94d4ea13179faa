"""An overridden train_step is honoured by every process, and their gradients are in sync."""

from pathlib import Path

import pytest
import torch

from tests.distributed.ranks import run_ranks
from tests.distributed.train_contract import KINDS, ROWS, WAYS, N, Rows

SCRIPT = Path(__file__).with_name("train_contract.py")


def one_process(kind, way):
    """The same global batches in one process: of each epoch's order, row i belongs to rank i % 2.

    A trainer shuffles what several processes share, whatever the loader says; the runner keeps the loader's order.
    """
    model, rows = KINDS[kind](), Rows()
    optimizer = model.configure_optimizers()
    for epoch in range(2):
        shuffled = torch.randperm(N, generator=torch.Generator().manual_seed(epoch))  # as torch's DistributedSampler
        order = torch.arange(N) if way == "runner" else shuffled
        for numbers in order.split(2 * ROWS):
            for _ in range(2 if kind == "manual" else 1):
                optimizer.zero_grad()
                (3 * (model.linear(rows.x[numbers]) - rows.y[numbers]).abs().mean()).backward()
                optimizer.step()
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    run_ranks(SCRIPT, str(path))
    return path


@pytest.mark.contract("001-9", "004-2")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_001_9_two_processes_end_where_one_ends(folder, way, kind):
    states = [torch.load(folder / f"{way}-{kind}-{rank}.pt", weights_only=True) for rank in (0, 1)]
    expected = one_process(kind, way)
    for name, value in expected.state_dict().items():
        assert torch.equal(states[0][name], states[1][name])
        torch.testing.assert_close(states[0][name], value, rtol=1e-5, atol=1e-6)
    rows = Rows()
    figure = (expected.linear(rows.x) - rows.y).abs().mean().item()
    assert [state["figure"] for state in states] == pytest.approx([figure, figure], rel=1e-5)
    assert [state["steps"] for state in states] == [2 * N // (2 * ROWS) * (2 if kind == "manual" else 1)] * 2
