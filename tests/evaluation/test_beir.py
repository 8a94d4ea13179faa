"""BEIR's folders: read, written, evaluated."""

from __future__ import annotations

import gzip
import json
import logging

import pytest
import pytrec_eval
import torch

from simtrain import SimilarityModel, evaluate
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.evaluation import JudgedSearch, Qrels, read_beir, run_metrics, search_run, write_beir
from simtrain.heads import EmptyHead

CORPUS = [
    {"_id": "d1", "title": "Age", "text": "how old someone is", "metadata": {}},
    {"_id": "d2", "title": "", "text": "the largest item"},
    {"_id": "d3", "text": "a café"},
]
QUERIES = [{"_id": "q1", "text": "age"}, {"_id": "q2", "text": "coffee"}, {"_id": "unjudged", "text": "?"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td3\t1\nq1\td2\t0\n"


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(lines(CORPUS))
    (tmp_path / "queries.jsonl").write_text(lines(QUERIES))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(QRELS)
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nunjudged\td2\t1\n")
    return tmp_path


def test_a_folder_is_read(folder):
    test = read_beir(folder)
    assert (test.query_ids, test.queries) == (["q1", "q2"], ["age", "coffee"])
    assert test.document_ids == ["d1", "d2", "d3"]
    assert test.documents == ["Age how old someone is", "the largest item", "a café"]
    assert test.qrels.to_dict() == {"q1": {"d1": 2, "d2": 0}, "q2": {"d3": 1}}
    assert test.relevant().tolist() == [[0, 0], [1, 2]]
    assert test.relevant(grade=2).tolist() == [[0, 0]]
    assert read_beir(folder, title_separator=": ").documents[0] == "Age: how old someone is"


def test_another_split_has_its_own_queries_and_trains(folder):
    train = read_beir(folder, "train")
    assert train.queries == ["?"]
    assert [(pair.obj_a, pair.obj_b) for pair in train.pairs()] == [("?", "the largest item")]


def test_gzipped_files_and_qrels_without_a_header(folder):
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        plain = (folder / name).read_bytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(plain.removeprefix(b"query-id\tcorpus-id\tscore\n")))
        (folder / name).unlink()
    assert read_beir(folder).qrels.to_dict() == {"q1": {"d1": 2, "d2": 0}, "q2": {"d3": 1}}


def test_what_is_written_reads_back(folder):
    first = read_beir(folder)
    write_beir(first, folder / "new", "dev")
    again = read_beir(folder / "new", "dev")
    assert (again.query_ids, again.queries) == (first.query_ids, first.queries)
    assert (again.document_ids, again.documents) == (first.document_ids, first.documents)
    assert again.qrels.to_dict() == first.qrels.to_dict()
    assert sorted(path.name for path in (folder / "new").rglob("*.*")) == ["corpus.jsonl", "dev.tsv", "queries.jsonl"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("corpus.jsonl", '{"_id": "d1", "text": "a"}\n{"_id": "d2"\n', r"corpus\.jsonl, line 2: no JSON"),
        ("corpus.jsonl", '{"_id": "d1", "txt": "a"}\n', r"line 1: there is no 'text'; did you mean 'txt'"),
        ("corpus.jsonl", '{"id": "d1", "text": "a"}\n', r"line 1: there is no '_id'"),
        ("corpus.jsonl", '{"_id": "d1", "text": null}\n', r"line 1: '_id', 'text' and 'title' should be texts"),
        ("corpus.jsonl", '{"_id": "d", "text": "a"}\n\n{"_id": "d", "text": "b"}\n', "line 3: the _id 'd' was there"),
        ("corpus.jsonl", '["d1"]\n', "line 1: a line holds an object"),
        ("corpus.jsonl", "", r"corpus\.jsonl is empty"),
        ("queries.jsonl", '{"_id": "q1", "text": "a"}\n', r"lacks 1 of the 2 queries that the split 'test' .* 'q2'"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\n", r"test\.tsv, line 2: a line of qrels has 3 columns"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\thigh\n", r"test\.tsv, line 2: 'high' is no number"),
        ("qrels/test.tsv", QRELS + "q1\td1\t1\n", r"test\.tsv, line 5: query 'q1' has the document 'd1' twice"),
    ],
)
def test_a_wrong_line_is_named(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        read_beir(folder)


def test_missing_files_are_named(folder):
    with pytest.raises(DataError, match=r"has no qrels/dev\.tsv; accepted: 'test', 'train'"):
        read_beir(folder, "dev")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"has no queries\.jsonl; a folder of BEIR holds"):
        read_beir(folder)
    with pytest.raises(DataError, match=r"has no corpus\.jsonl"):
        read_beir(folder / "nowhere")


def test_judged_documents_that_the_corpus_lacks_count_as_never_found(folder, caplog):
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("q2\tlost\t1\n")
    with caplog.at_level(logging.WARNING, logger="simtrain"):
        test = read_beir(folder)
    assert "lacks 1 judged documents, such as 'lost'" in caplog.text
    assert test.relevant().tolist() == [[0, 0], [1, 2]]
    run = test.run(torch.eye(3)[:2], torch.eye(3)[[0, 2, 1]])
    assert run_metrics(run, test.qrels, ["recall@10"]).means["recall@10"] == 0.75


def vectors(names, items, qrels, **options):
    return JudgedSearch(names, items, ["a", "b", "c"], [(1.0, 0.0), (0.8, 0.6), (0.0, 1.0)], qrels, **options)


def model():
    return SimilarityModel(PrecomputedEncoder(2), EmptyHead(2))


def test_evaluate_and_the_run_agree_with_pytrec_eval():
    qrels = {"q1": {"a": 1, "c": 1}, "q2": {"b": 3, "a": 0}}
    test = vectors(["q1", "q2"], [(1.0, 0.1), (0.1, 1.0)], Qrels.from_dict(qrels))
    run = search_run(model(), test)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank", "recall_2", "ndcg_cut_3"}).evaluate(run.to_dict())
    result = evaluate(model(), test, k=(2,))
    assert result.scores["mrr"].tolist() == [theirs[q]["recip_rank"] for q in ("q1", "q2")]
    assert result.scores["recall@2"].tolist() == [theirs[q]["recall_2"] for q in ("q1", "q2")]
    ours = run_metrics(run, test.qrels, ["ndcg_cut_3"]).scores["ndcg_cut_3"]
    assert ours.tolist() == pytest.approx([theirs[q]["ndcg_cut_3"] for q in ("q1", "q2")], abs=1e-12)


def test_a_query_does_not_find_the_document_of_its_own_name():
    qrels = Qrels.from_dict({"a": {"b": 1}})
    test = vectors(["a"], [(1.0, 0.0)], qrels)
    assert list(search_run(model(), test).to_dict()["a"]) == ["b", "c"]
    assert evaluate(model(), test).metrics["mrr"] == 1.0
    other = vectors(["a"], [(1.0, 0.0)], qrels, skip_own=False)
    assert list(search_run(model(), other, depth=2).to_dict()["a"]) == ["a", "b"]
    assert evaluate(model(), other).metrics["mrr"] == 0.5


def test_wrong_searches_are_refused():
    qrels = Qrels.from_dict({"q": {"a": 1}})
    with pytest.raises(DataError, match="got 2 names of query items and 1 items"):
        vectors(["q", "r"], [(1.0, 0.0)], qrels)
    with pytest.raises(DataError, match="two query items are named 'q'"):
        vectors(["q", "q"], [(1.0, 0.0)] * 2, qrels)
    with pytest.raises(DataError, match="1 judged queries have no text, such as 'q'"):
        vectors(["r"], [(1.0, 0.0)], qrels)
    with pytest.raises(ConfigError, match="depth is a positive integer, got 0"):
        search_run(model(), vectors(["q"], [(1.0, 0.0)], qrels), depth=0)
    with pytest.raises(DataError, match="got 2 embeddings for 1 queries"):
        vectors(["q"], [(1.0, 0.0)], qrels).run(torch.eye(2), torch.ones(3, 2))


def test_only_texts_and_plain_names_are_written(tmp_path):
    qrels = Qrels.from_dict({"q": {"a": 1}})
    with pytest.raises(DataError, match="BEIR's files hold texts, got a tuple"):
        write_beir(vectors(["q"], [(1.0, 0.0)], qrels), tmp_path / "new")
    with pytest.raises(DataError, match="neither tab nor line break, got 'q\\\\t'"):
        write_beir(JudgedSearch(["q\t"], ["x"], ["a"], ["y"], Qrels.from_dict({"q\t": {"a": 1}})), tmp_path / "new")
    assert not (tmp_path / "new").exists()
