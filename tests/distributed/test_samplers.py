"""Samplers in real processes: no sample is lost or repeated, and a stopped run goes on."""

from pathlib import Path

import torch

from tests.data.samplers.processes import flat
from tests.distributed.ranks import run_ranks
from tests.distributed.train_samplers import BATCH, make_loader

SCRIPT = Path(__file__).with_name("train_samplers.py")


def load(folder, name):
    return [torch.load(folder / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1)]


def joined(ranks):
    """Batches of both processes, step by step."""
    assert [epoch for epoch, _ in ranks[0]["seen"]] == [epoch for epoch, _ in ranks[1]["seen"]]
    return [left + right for (_, left), (_, right) in zip(ranks[0]["seen"], ranks[1]["seen"], strict=True)]


def test_two_processes_train_on_what_one_would_and_go_on_where_they_stopped(tmp_path):
    run_ranks(SCRIPT, str(tmp_path))
    for sampler in ("shuffle", "hard"):
        stopped, resumed = load(tmp_path, f"{sampler}-stop"), load(tmp_path, f"{sampler}-resume")
        drawn = stopped[0]["drawn"]
        assert drawn != stopped[1]["drawn"], "the test is to begin with different seeds"
        assert {drawn} == {one["seed"] for one in stopped + resumed}
        one = make_loader(sampler, 2 * BATCH)
        one.sampler.seed = drawn
        epochs = [[list(batch.objects) for batch in one] for _ in range(3)]
        assert 8 % len(epochs[0]) != 0, "the test is to stop in the middle of an epoch"
        assert joined(stopped) == flat(epochs)[:8]
        assert joined(resumed) == flat(epochs)[8:]
        assert torch.equal(resumed[0]["weight"], resumed[1]["weight"])
        if sampler == "shuffle":
            assert all(sorted(flat(epoch)) == list(range(75)) for epoch in epochs)
