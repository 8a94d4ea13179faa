"""A Runner in two processes ends where one process ends; a step that is not finite in one is left out in both."""

from pathlib import Path

import pytest
import torch

from tests.distributed.ranks import run_ranks
from tests.distributed.train_runner import EPOCHS, ROWS, WINDOW, Line, N, Rows

SCRIPT = Path(__file__).with_name("train_runner.py")


def one_process():
    """The same windows of global batches: of each epoch's order, row i belongs to rank i % 2."""
    model, rows = Line(), Rows()
    optimizer = model.configure_optimizers()
    for epoch in range(EPOCHS):
        order = torch.randperm(N, generator=torch.Generator().manual_seed(epoch))  # as torch's DistributedSampler
        batches = order.split(2 * ROWS)
        for start in range(0, len(batches), WINDOW):
            window = batches[start : start + WINDOW]
            if epoch == 0 and start == 0:
                continue  # holds the batch that is not finite in the second process
            optimizer.zero_grad()
            losses = [model.compute_loss({"x": rows.x[one], "y": rows.y[one]})["loss"] for one in window]
            torch.stack(losses).mean().backward()
            optimizer.step()
    return model


@pytest.mark.contract("wall_e-1", "wall_e-17", "wall_e-18", "wall_e-19", "wall_e-20", "002-12", "002-14", "002-17")
def test_wall_e_1_17_18_19_20_two_processes_of_a_runner_end_where_one_ends(tmp_path):
    run_ranks(SCRIPT, str(tmp_path), fresh=True)
    states = [torch.load(tmp_path / f"runner-{rank}.pt", weights_only=True) for rank in (0, 1)]
    expected = one_process()
    for name, value in expected.state_dict().items():
        assert torch.equal(states[0][name], states[1][name])
        torch.testing.assert_close(states[0][name], value, rtol=1e-5, atol=1e-6)
    rows = Rows()
    figure = (expected.linear(rows.x) - rows.y).abs().mean().item()
    assert [state["figure"] for state in states] == pytest.approx([figure, figure], rel=1e-5)
    epoch = ["before_running_epoch", "after_valid", "after_running_epoch"]
    fit = ["before_fit", "before_train", *epoch * EPOCHS, "after_fit"]
    assert [state["lines"] for state in states] == [[*fit, "after_valid"]] * 2
    assert [state["rank"] for state in states] == [0, 1]
