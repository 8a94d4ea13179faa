"""PEERS.md 25: which peer's MAP at k each denominator is, on the peers' own code."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from torchmetrics.retrieval import RetrievalMAP as TorchRetrievalMAP

from simtrain.metrics import retrieval_report

K = 5


@pytest.fixture(scope="module")
def searched():
    torch.manual_seed(0)
    queries, gallery = torch.randn(40, 6).double(), torch.randn(90, 6).double()
    labels, others = torch.arange(40) % 8, torch.arange(90) % 8
    return queries, gallery, labels, others


def ours(searched, denominator: str) -> float:
    queries, gallery, labels, others = searched
    return retrieval_report(queries, labels, gallery, others, k=K, denominator=denominator)[f"map@{K}"]


def test_relevant_is_that_of_pytorch_metric_learning(searched):
    queries, gallery, labels, others = searched
    knn = CustomKNN(CosineSimilarity())
    peer = AccuracyCalculator(include=("mean_average_precision",), k=K, knn_func=knn, device=torch.device("cpu"))
    found = peer.get_accuracy(queries, labels, gallery, others)["mean_average_precision"]
    assert ours(searched, "relevant") == pytest.approx(found)


def test_hits_is_that_of_torchmetrics(searched):
    queries, gallery, labels, others = searched
    cosines = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(gallery).T
    # Scores up to 0 would count as not found there.
    peer = TorchRetrievalMAP(top_k=K)
    rows = torch.arange(40)[:, None].expand_as(cosines)
    peer.update((cosines + 2).reshape(-1), (labels[:, None] == others).reshape(-1), indexes=rows.reshape(-1))
    assert ours(searched, "hits") == pytest.approx(float(peer.compute()))


def test_min_k_relevant_is_that_of_sentence_transformers(searched):
    queries, gallery, labels, others = searched
    cosines = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(gallery).T
    peer = InformationRetrievalEvaluator(
        {str(q): "" for q in range(40)},
        {str(d): "" for d in range(90)},
        {str(q): {str(int(d)) for d in (others == labels[q]).nonzero()[:, 0]} for q in range(40)},
        map_at_k=[K],
    )
    found = [[{"corpus_id": str(d), "score": float(score)} for d, score in enumerate(row)] for row in cosines.tolist()]
    assert ours(searched, "min_k_relevant") == pytest.approx(peer.compute_metrics(found)["map@k"][K])


def test_the_three_differ(searched):
    assert ours(searched, "relevant") < ours(searched, "min_k_relevant") < ours(searched, "hits")
