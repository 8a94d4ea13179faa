"""What two processes measure of their shards is what one measures of all, however uneven the shards are."""

import json
from pathlib import Path

import pytest
import torch

from tests.distributed.measure_shards import METRICS, SHARDS, SPLITS, N, evaluated, metric_figures
from tests.distributed.ranks import run_ranks

KINDS = ("groups", "pairs")
#: Sums of floating point numbers depend on their order, in the last digits; all others are sums of integers.
INEXACT = ("alignment", "uniformity", "effective_rank")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    run_ranks(Path(__file__).with_name("measure_shards.py"), str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_batches_is_that_of_one_process(ranks, kind, name):
    for split, owners in SPLITS.items():
        expected = metric_figures(name, kind, owners, None)
        assert expected not in (0.0, 1.0), "such a figure would be right by chance"
        for found in ranks:
            given = found[f"metric/{kind}/{split}/{name}"]
            assert given == (pytest.approx(expected, rel=1e-6) if name in INEXACT else expected), split


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SHARDS)
def test_an_evaluator_of_shards_is_that_of_one_process(ranks, kind, split):
    expected = evaluated(kind, torch.arange(N))
    assert 0 < expected["set/recall@3"] < 1
    for found in ranks:
        assert found[f"evaluator/{kind}/{split}"] == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_measured_is_told_in_every_process(ranks):
    for found in ranks:
        assert "processes have batches of groups and pairs" in found["mixed"]
        assert "nothing to measure: no batch was processed since the last evaluation" in found["nothing"]
        assert "of the queries holds NaN" in found["broken"]
