"""Two processes measure what one does, though a distributed sampler gives them 42 of 41 samples."""

import json
from pathlib import Path

import pytest

from tests.distributed.ranks import run_ranks
from tests.distributed.train_evaluators import KINDS, N, measure

SCRIPT = Path(__file__).with_name("train_evaluators.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    run_ranks(SCRIPT, str(path))
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_one_process_without_repeated_rows(folder, kind):
    expected = measure(kind, 1, 12)
    assert {"set_mrr_train", "set_mrr_validation", "set_mrr_test"} <= expected.keys()
    for rank in (0, 1):
        given = json.loads((folder / f"{kind}-{rank}.json").read_text())
        assert given == pytest.approx(expected, abs=1e-6)
    if kind == "groups":
        assert expected["rows_rows_test"] == N
        assert 0 < expected["own_recall@5_train"] == expected["own_recall@5_validation"] < 1
        assert expected["one_mrr_test"] == 1.0
        assert {"p_validation", "p_test"} <= expected.keys()
