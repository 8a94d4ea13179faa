import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from torchmetrics import MeanMetric

import simtrain
from simtrain import Evaluator
from simtrain.data import SimilarityPairSample
from simtrain.errors import ConfigError, DataError
from simtrain.evaluation import BaseMetric, HeldOutRetrieval, Numbered, PairCorrelation, SetRetrieval
from simtrain.evaluation.base_metric import _one_a_sample
from simtrain.evaluation.correlation import correlation
from simtrain.evaluation.embedding_store import EmbeddingStore
from simtrain.metrics import RetrievalPrecision, retrieval_scores


class Accuracy(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [float(guess == truth) for guess, truth in zip(data_samples, data_batch, strict=True)]

    def compute_metrics(self, results):
        return {"accuracy": sum(results) / len(results)}


def batches(embeddings, groups, size):
    for start in range(0, len(groups), size):
        part = slice(start, start + size)
        yield {"embeddings": embeddings[part], "targets": {"groups": groups[part]}}


def test_a_list_of_results_and_a_dict_are_handed_to_every_metric():
    evaluator = Evaluator([Accuracy(), Accuracy(prefix="again")])
    evaluator.process(data_samples=[1, 2], data_batch=[1, 1])
    evaluator.process(data_samples=[3], data_batch=[3])
    assert evaluator.evaluate(3) == {"accuracy": 2 / 3, "again/accuracy": 2 / 3}
    with pytest.raises(DataError, match="Accuracy has no results to measure"):
        evaluator.evaluate(3)


def test_it_is_a_public_name_with_a_state_and_meta_information():
    evaluator = simtrain.Evaluator(Accuracy())
    evaluator.setup_state({"epoch": 3})
    evaluator.dataset_meta = {"classes": ["a"]}
    assert evaluator.metrics[0].state == {"epoch": 3}
    assert evaluator.metrics[0].dataset_meta == {"classes": ["a"]} == evaluator.dataset_meta


def test_names_of_metrics_keep_figures_apart():
    evaluator = Evaluator([Accuracy(), Accuracy()])
    evaluator.process([1], [1])
    with pytest.raises(ConfigError, match="two metrics give a figure called 'accuracy'; pass the metrics as a mapping"):
        evaluator.evaluate(1)
    evaluator = Evaluator({"a": Accuracy(), "p@1": RetrievalPrecision(k=1), "b": {"type": "SetRetrieval", "k": 1}})
    assert [type(metric).__name__ for metric in evaluator.metrics] == ["Accuracy", "UpdatedMetric", "SetRetrieval"]


def test_given_metrics_keep_their_names_and_a_torchmetrics_metric_its_state():
    accuracy, updated = Accuracy(prefix="own"), RetrievalPrecision(k=1)
    updated.update(torch.eye(2), torch.tensor([0, 0]))
    for name in ("a", "b"):
        evaluator = Evaluator({name: accuracy, "p": updated})
        assert accuracy.prefix == "own"
        accuracy.process([1], [1])
        evaluator.metrics[1].process(None, {"embeddings": torch.eye(2), "targets": {"groups": torch.tensor([0, 0])}})
        assert evaluator.evaluate(1) == {f"{name}/own/accuracy": 1.0, "p": 1.0}
        assert int(updated.n_queries) == 2, "it is a copy that is fed"


def test_the_divisor_of_map_and_queries_without_a_match_are_options():
    embeddings, groups = torch.randn(20, 4), torch.tensor([*range(15), 0, 0, 0, 1, 1])
    for words in ({"denominator": "relevant"}, {"empty": "zero"}):
        metric = SetRetrieval(k=2, **words)
        for results in batches(embeddings, groups, 6):
            metric.process(None, results)
        expected = retrieval_scores(embeddings, groups, k=2, **words)
        del expected["query"]
        assert metric.evaluate(20) == {name: pytest.approx(float(value.mean())) for name, value in expected.items()}
    strict = SetRetrieval(k=2, empty="error")
    strict.process(None, {"embeddings": embeddings, "targets": {"groups": groups}})
    with pytest.raises(DataError, match="13 queries have no relevant item in the gallery, such as query 2"):
        strict.evaluate(20)
    with pytest.raises(ConfigError, match="unknown denominator 'r'"):
        SetRetrieval(denominator="r")


def test_what_is_no_metric_is_refused():
    with pytest.raises(ConfigError, match=r"an Evaluator takes BaseMetrics, torchmetrics Metrics and configs.*got int"):
        Evaluator(3)
    held_out = HeldOutRetrieval([SimilarityPairSample((1.0, 0.0), (0.0, 1.0))])
    with pytest.raises(
        ConfigError, match=r"HeldOutRetrieval measures a model .*: pass it as TrainableModel\(evaluators="
    ):
        Evaluator({"own": held_out})
    with pytest.raises(ConfigError, match="unknown metric type 'SetRetrievl'; did you mean 'SetRetrieval'"):
        Evaluator({"type": "SetRetrievl"})


def test_a_torchmetrics_metric_is_updated_by_batches_and_begins_anew():
    embeddings, groups = torch.randn(30, 4), torch.arange(30) % 5
    metric, evaluator = RetrievalPrecision(k=2), Evaluator(RetrievalPrecision(k=2))
    for _ in range(2):
        metric.reset()
        for results in batches(embeddings, groups, 8):
            metric.update(results["embeddings"], **results["targets"])
            evaluator.process(results)
        assert evaluator.evaluate(30) == {"RetrievalPrecision": pytest.approx(float(metric.compute()))}


def test_results_without_embeddings_are_told():
    evaluator = Evaluator({"m": RetrievalPrecision()})
    with pytest.raises(DataError, match=r"m measures dicts with 'embeddings' and 'targets'.*got the keys"):
        evaluator.process({"loss": 1.0})
    with pytest.raises(DataError, match="got list"):
        Evaluator(SetRetrieval()).process([1])


def test_offline_evaluation_is_that_of_a_loop():
    embeddings, groups = torch.randn(20, 4), torch.arange(20) % 4
    online, offline = Evaluator(SetRetrieval(k=1)), Evaluator(SetRetrieval(k=1))
    for results in batches(embeddings, groups, 6):
        online.process(results)
    assert offline.offline_evaluate(batches(embeddings, groups, 20)) == online.evaluate(20)
    accuracy = Evaluator(Accuracy())
    assert accuracy.offline_evaluate([1, 2, 3], [1, 2, 4], chunk_size=2) == {"accuracy": 2 / 3}
    with pytest.raises(DataError, match="there are more results than data"):
        accuracy.offline_evaluate([1, 2, 3], [1, 2], chunk_size=2)
    with pytest.raises(DataError, match="there are more data than results"):
        accuracy.offline_evaluate([1, 2], [1, 2, 3], chunk_size=2)
    with pytest.raises(ConfigError, match="chunk_size is a positive integer, got 0"):
        accuracy.offline_evaluate([1], chunk_size=0)


@pytest.mark.contract("wall_e-25")
def test_parts_of_processes_are_joined_sample_by_sample():
    # A distributed sampler of 5 samples gives 0 2 4 and 1 3 0.
    assert _one_a_sample([[0, 2, 4], [1, 3, 0]], 5, "m") == [0, 1, 2, 3, 4]
    assert _one_a_sample([[0, 2], [1]], 3, "m") == [0, 2, 1]
    numbered = [[Numbered(0, "a"), Numbered(2, "c")], [Numbered(1, "b"), Numbered(0, "a")]]
    assert _one_a_sample(numbered, 3, "m") == ["a", "b", "c"]
    assert _one_a_sample([[5, 6], [7, 8]], 0, "m") == [5, 6, 7, 8]
    with pytest.raises(DataError, match="m collected 2 results of 5 samples in 2 processes; add one result a sample"):
        _one_a_sample([[0], [1]], 5, "m")


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("budget", [2**30, 64])
def test_whole_set_figures_are_those_of_the_metrics_in_memory_and_on_disk(distance, budget):
    embeddings, groups = torch.randn(41, 5), torch.arange(41) % 6
    metric = SetRetrieval(k=(1, 4), distance=distance, memory_budget=budget)
    for results in batches(embeddings, groups, 9):
        metric.process(None, results)
    assert metric._store.is_in_memory == (budget > 64)
    figures = metric.evaluate(41)
    expected = retrieval_scores(embeddings, groups, k=(1, 4), distance=distance)
    del expected["query"]
    assert figures == {name: pytest.approx(float(value.mean()), abs=1e-9) for name, value in expected.items()}
    assert metric.scores.keys() == expected.keys()


def test_kinds_of_batches_do_not_mix_and_nothing_is_no_result():
    metric = SetRetrieval()
    with pytest.raises(DataError, match="SetRetrieval has nothing to measure"):
        metric.evaluate(1)
    metric.process(None, {"embeddings": torch.eye(2), "targets": {"groups": torch.tensor([0, 0])}})
    with pytest.raises(DataError, match=r"SetRetrieval measures batches of groups, got the targets \['pairs'\]"):
        metric.process(None, {"embeddings": torch.eye(2), "targets": {"pairs": torch.tensor([[0, 1]])}})
    with pytest.raises(DataError, match="SetRetrieval measures batches of groups or pairs"):
        SetRetrieval().process(None, {"embeddings": torch.eye(2), "targets": {}})


def test_an_embedding_that_is_not_finite_is_an_error_and_not_a_figure():
    metric = SetRetrieval(k=1)
    broken = torch.tensor([[1.0, 0.0], [float("nan"), 0.0]])
    metric.process(None, {"embeddings": broken, "targets": {"groups": torch.tensor([0, 0])}})
    with pytest.raises(DataError, match="row 1 of the queries holds NaN"):
        metric.evaluate(2)
    metric.process(None, {"embeddings": torch.eye(2), "targets": {"groups": torch.tensor([0, 0])}})
    assert metric.evaluate(2)["precision@1"] == 1.0, "what was broken is forgotten"


def test_a_store_keeps_order_and_takes_rows():
    rows = torch.randn(50, 3)
    for budget in (2**20, 100):
        store = EmbeddingStore(budget)
        for part in rows.split(7):
            store.add(part)
        assert torch.equal(store.rows(), rows)
        store.add(rows[:2])
        assert torch.equal(store.rows(), torch.cat([rows, rows[:2]]))
        order = torch.tensor([4, 4, 51, 0])
        assert torch.equal(store.take(order).rows(), rows[[4, 4, 1, 0]])
        with pytest.raises(DataError, match="embeddings of 3 dimensions are followed by some of 4"):
            store.add(torch.zeros(1, 4))
    with pytest.raises(ConfigError, match="memory_budget is a positive number of bytes, got 0"):
        EmbeddingStore(0)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12))
def test_correlations_are_those_of_scipy(points):
    left, right = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    for name, reference in (("spearman", spearmanr), ("pearson", pearsonr)):
        constant = np.ptp(left) == 0 or np.ptp(right) == 0
        expected = 0.0 if constant else reference(left, right).statistic
        assert correlation(left, right, name) == pytest.approx(expected, abs=1e-9)


def test_pairs_are_correlated_over_the_whole_set_each_once():
    metric, rows = PairCorrelation(), torch.randn(12, 4)
    pairs, labels = torch.tensor([[0, 3], [1, 4], [2, 5]]), torch.tensor([0.1, 0.7, 0.4])
    for start in (0, 6, 6):
        items = torch.tensor([0, 1, 2, 10, 11, 12]) + 3 * (start > 0)
        targets = {"pairs": pairs, "labels": labels + start, "items": items}
        metric.process(None, {"embeddings": rows[start : start + 6], "targets": targets})
    halves = rows.reshape(2, 2, 3, 4)
    cosines = torch.cosine_similarity(halves[:, 0], halves[:, 1], dim=-1).reshape(-1)
    scores = torch.cat([labels, labels + 6])
    assert metric.evaluate(6)["spearman"] == pytest.approx(spearmanr(cosines, scores).statistic)
    with pytest.raises(DataError, match="a correlation needs two pairs at least, got 1"):
        correlation(np.ones(1), np.ones(1))
    with pytest.raises(DataError, match="the score of pair 1 is NaN"):
        correlation(np.ones(2), np.array([1.0, np.nan]))
    with pytest.raises(DataError, match="PairCorrelation measures batches of pairs with scores"):
        metric.process(None, {"embeddings": rows, "targets": {"groups": pairs}})


def test_figures_are_plain_numbers():
    evaluator = Evaluator({"mean": _Mean(), "set": SetRetrieval(k=1)})
    for results in batches(torch.randn(8, 2), torch.arange(8) % 2, 4):
        evaluator.process(results)
    assert set(json.loads(json.dumps(evaluator.evaluate(8)))) > {"mean", "set/mrr"}


class _Mean(MeanMetric):
    def update(self, embeddings, **targets):
        super().update(embeddings.mean())
