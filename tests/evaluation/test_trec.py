"""Runs and qrels: read, written, and measured to the last digit as trec_eval measures them."""

from __future__ import annotations

import gzip

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.errors import ConfigError, DataError
from simtrain.evaluation import Qrels, Run, judgement_lines, read_qrels, read_run, run_metrics, write_qrels, write_run
from simtrain.evaluation.run_measures import SPELLINGS, parsed_metric

METRICS = [
    *("map", "ndcg", "bpref", "recip_rank", "Rprec"),
    *(f"{name}_{k}" for name in ("P", "success", "ndcg_cut", "map_cut", "recall") for k in (1, 3, 20)),
]
NAMES = st.sampled_from(["a", "b", "B", "ä", "z", "10", "9", "-", "doc/1", "😀"])
# Scores that tie, that differ only beyond float32, and that are beyond float32 altogether.
SCORES = st.sampled_from([0.0, -0.0, 0.5, 0.5 + 1e-12, 0.5 - 1e-9, -3.0, 1e-50, 1e30, 7.25, float("-inf")])
LISTS = st.dictionaries(st.sampled_from(["q1", "q2", "q3"]), st.dictionaries(NAMES, SCORES, min_size=1), min_size=1)
JUDGED = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]), st.dictionaries(NAMES, st.integers(0, 4), min_size=1), min_size=1
)


@settings(max_examples=60)
@given(run=LISTS, qrels=JUDGED, level=st.integers(1, 2), columns=st.booleans())
def test_figures_equal_pytrec_eval(run, qrels, level, columns):
    theirs = pytrec_eval.RelevanceEvaluator(qrels, METRICS, relevance_level=level).evaluate(run)
    if not theirs:
        with pytest.raises(DataError, match="no judged query is in the run"):
            run_metrics(run, qrels, METRICS)
        return
    ours = run_metrics(Run.from_dict(run) if columns else run, qrels, METRICS, relevant_from=level, missing="skip")
    assert set(ours.query_ids) == set(theirs)
    for name in METRICS:
        expected = [theirs[query][name] for query in ours.query_ids]
        np.testing.assert_allclose(ours.scores[name], expected, rtol=0, atol=1e-12, err_msg=name)


@settings(max_examples=50)
@given(run=LISTS, qrels=JUDGED)
def test_means_equal_ir_measures(run, qrels):
    if not set(run) & set(qrels):
        return
    names = ["nDCG@3", "nDCG", "AP", "AP@2", "RR", "P@2", "R@3", "Success@2", "Rprec", "Bpref"]
    theirs = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in names], qrels, run)
    ours = run_metrics(run, qrels, names).means
    for measure, value in theirs.items():
        assert ours[str(measure)] == pytest.approx(value, abs=1e-12), measure


@pytest.mark.parametrize("seed", range(3))
def test_large_random_runs_with_ties_equal_pytrec_eval(seed):
    rng = np.random.default_rng(seed)
    run, qrels = {}, {}
    for query in range(40):
        documents = rng.choice(2000, size=600, replace=False).tolist()
        # Few distinct scores: hundreds of documents share each.
        run[f"q{query}"] = {
            f"d{d}": float(score) for d, score in zip(documents, rng.integers(9, size=600), strict=True)
        }
        judged = rng.choice(2000, size=80, replace=False).tolist()
        qrels[f"q{query}"] = {f"d{d}": int(grade) for d, grade in zip(judged, rng.integers(4, size=80), strict=True)}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, METRICS).evaluate(run)
    ours = run_metrics(Run.from_dict(run), qrels, METRICS)
    for name in METRICS:
        expected = [theirs[query][name] for query in ours.query_ids]
        np.testing.assert_allclose(ours.scores[name], expected, rtol=0, atol=1e-12, err_msg=name)


def test_reciprocal_rank_with_a_depth_equals_ir_measures():
    run = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}
    for k in (1, 2, 3):
        theirs = ir_measures.calc_aggregate([ir_measures.RR @ k], {"q": {"b": 1}}, run)
        assert run_metrics(run, {"q": {"b": 1}}, [f"mrr@{k}"]).means[f"mrr@{k}"] == next(iter(theirs.values()))


def test_equal_scores_are_ordered_by_name_descending():
    qrels = {"q": {"a": 1}}
    assert run_metrics({"q": {"a": 0.5, "b": 0.5, "c": 0.5}}, qrels, ["mrr"]).means["mrr"] == pytest.approx(1 / 3)
    assert run_metrics({"q": {"a": 0.5, "B": 0.5}}, qrels, ["mrr"]).means["mrr"] == 1.0
    # Not told apart as float32, as which trec_eval keeps scores.
    assert run_metrics({"q": {"a": 0.5 + 1e-12, "b": 0.5}}, qrels, ["mrr"]).means["mrr"] == 0.5


def test_negative_grades_are_as_if_not_judged():
    run = {"q": {"a": 4.0, "b": 3.0, "c": 2.0}}
    names = ["map", "ndcg@3", "bpref", "mrr"]
    with_negative = run_metrics(run, {"q": {"a": -1, "b": 0, "c": 1}}, names)
    assert with_negative.means == run_metrics(run, {"q": {"b": 0, "c": 1}}, names).means


def test_a_query_that_the_run_lacks():
    run, qrels = {"q1": {"a": 1.0}}, {"q1": {"a": 1}, "q2": {"a": 1}}
    assert run_metrics(run, qrels, ["mrr"]).means == {"mrr": 0.5}
    assert run_metrics(run, qrels, ["mrr"], missing="skip").means == {"mrr": 1.0}
    with pytest.raises(DataError, match=r"lacks 1 of 2 judged queries, such as 'q2'; missing='zero' counts"):
        run_metrics(run, qrels, ["mrr"], missing="error")


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("ndcg@10", ("ndcg", 10)),
        ("ndcg_cut_10", ("ndcg", 10)),
        ("nDCG@10", ("ndcg", 10)),
        ("hit_rate@5", ("hit_rate", 5)),
        ("success_5", ("hit_rate", 5)),
        ("r_precision", ("r_precision", None)),
        ("AP", ("map", None)),
        ("recip_rank", ("mrr", None)),
    ],
)
def test_names_of_other_tools_are_taken(name, parsed):
    assert parsed_metric(name) == parsed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndgc@10", "unknown metric 'ndgc@10'; did you mean 'ndcg'"),
        ("precision", "precision@k with k from 1, got 'precision'"),
        ("recall@0", "recall@k with k from 1"),
        ("bpref@3", "bpref without a depth, got 'bpref@3'"),
        ("", "unknown metric ''"),
    ],
)
def test_wrong_metrics_are_named(name, message):
    with pytest.raises(ConfigError, match=message):
        run_metrics({"q": {"a": 1.0}}, {"q": {"a": 1}}, [name])


def test_every_spelling_stands_for_one_metric():
    names = [spelling for ours, others in SPELLINGS.items() for spelling in (ours, *others)]
    assert len(names) == len(set(names))


@settings(max_examples=30)
@given(run=LISTS)
def test_a_run_that_is_written_reads_back(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.txt"
    write_run(run, path)
    assert read_run(path).to_dict() == run
    with path.open() as file:
        assert pytrec_eval.parse_run(file) == run


@pytest.mark.parametrize("name", ["qrels.txt", "qrels.txt.gz"])
def test_qrels_that_are_written_read_back(tmp_path, name):
    qrels = {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}
    write_qrels(qrels, tmp_path / name)
    assert read_qrels(tmp_path / name).to_dict() == qrels
    if name.endswith(".gz"):
        assert gzip.decompress((tmp_path / name).read_bytes()).startswith(b"q1 0 d1 2\n")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_written_run_is_in_the_order_that_is_measured(tmp_path):
    write_run({"q": {"a": 0.5, "b": 0.5, "c": 0.75, "d": 0.25}}, tmp_path / "run.txt", tag="mine", depth=3)
    assert (tmp_path / "run.txt").read_text().splitlines() == [
        "q Q0 c 1 0.75 mine",
        "q Q0 b 2 0.5 mine",
        "q Q0 a 3 0.5 mine",
    ]


def test_entries_of_a_query_need_not_be_together(tmp_path):
    path = tmp_path / "run.txt"
    path.write_text("q1 Q0 a 1 3 x\nq2 Q0 a 1 3 x\n\nq1\tQ0\tb\t2\t2.5\tx\r\n")
    assert read_run(path).to_dict() == {"q1": {"a": 3.0, "b": 2.5}, "q2": {"a": 3.0}}


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_run, "q Q0 a 1 3 x\nq Q0 b 2 2.5\n", "line 2: a line of a run has 6 columns .*, got 5: 'q Q0 b 2 2.5'"),
        (read_run, "q Q0 a 1 3 x\n\nq Q0 b 2 high x\n", "line 3: 'high' is no number"),
        (read_run, "q Q0 a 1 3 x\nq Q0 b 2 nan x\n", "line 2: query 'q': a score should be a number, got nan"),
        (read_run, "q Q0 a 1 3 x\nr Q0 a 2 3 x\nq Q0 a 2 2 x\n", "line 3: query 'q' has the document 'a' twice"),
        (read_run, "q Q0 a 1 x\nq Q0 b 2 2 x y\n", "line 1: a line of a run has 6 columns .*, got 5"),
        (read_run, "\n \n", "is empty; a run has lines of: query Q0 document rank score tag"),
        (read_qrels, "q 0 a 1\nq 0 b 1.5\n", "line 2: query 'q': a grade should be an integer, got 1.5"),
        (read_qrels, "q 0 a 1\nq 0 b\n", "line 2: a line of qrels has 4 columns"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, read, text, message):
    path = tmp_path / "given.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"given\.txt.*{message}"):
        read(path)


def test_files_of_many_blocks_are_read_like_small_ones(tmp_path, monkeypatch):
    run = {f"q{q}": {name: float(row) for row, name in enumerate(("a", "ä", "b"))} for q in range(50)}
    write_run(run, tmp_path / "run.txt")
    monkeypatch.setattr(judgement_lines, "_BLOCK", 100)
    assert read_run(tmp_path / "run.txt").to_dict() == run
    with (tmp_path / "run.txt").open("a") as file:
        file.write("q9 Q0 a 4 1 x")
    with pytest.raises(DataError, match="line 151: query 'q9' has the document 'a' twice"):
        read_run(tmp_path / "run.txt")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*run\.txt' to read a run from"):
        read_run(tmp_path / "run.txt")
    (tmp_path / "run.txt").write_bytes(b"q Q0 \xff 1 3 x\n")
    with pytest.raises(DataError, match="cannot be read as a run in UTF-8"):
        read_run(tmp_path / "run.txt")
    (tmp_path / "run.gz").write_bytes(b"q Q0 a 1 3 x\n")
    with pytest.raises(DataError, match="cannot be read as a run"):
        read_run(tmp_path / "run.gz")
    whole = gzip.compress(np.random.default_rng(0).bytes(4000).hex().encode())
    for damaged in (whole[:2000], whole[:10] + b"\x07" + whole[11:]):
        (tmp_path / "run.gz").write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read as a run"):
            read_run(tmp_path / "run.gz")


def test_names_that_would_break_a_line_are_refused_and_nothing_is_written(tmp_path):
    for run in ({"q": {"a b": 1.0}}, {"": {"a": 1.0}}, {"q\n": {"a": 1.0}}):
        with pytest.raises(DataError, match="have no white space"):
            write_run(run, tmp_path / "run.txt")
    with pytest.raises(DataError, match="have no white space"):
        write_qrels({"q": {"a\tb": 1}}, tmp_path / "qrels.txt")
    assert not list(tmp_path.iterdir())


def test_lists_refuse_what_is_no_number():
    with pytest.raises(DataError, match="query 'q2': a score should be a number, got nan"):
        Run.from_dict({"q1": {"a": 1.0}, "q2": {"a": float("nan")}})
    with pytest.raises(DataError, match=r"query 'q': a grade should be an integer, got 0\.5"):
        Qrels.from_dict({"q": {"a": 0.5}})
    with pytest.raises(DataError, match="query 'q': the score of 'b' is NaN"):
        run_metrics({"q": {"a": 1.0, "b": float("nan")}}, {"q": {"a": 1}})
