"""Every figure of sentence-transformers' retrieval evaluator is one of ``retrieval_report``."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import cos_sim

from simtrain.metrics import retrieval_report

KS = [1, 3, 10]
NAMES = {"accuracy": "hit_rate", "precision": "precision", "recall": "recall", "map": "map", "ndcg": "ndcg"}


class Known:
    """A model that knows the embeddings of its texts, which are numbers of rows."""

    def __init__(self, queries, documents):
        self.queries, self.documents = queries, documents

    def encode_query(self, texts, **options):
        return self.queries[[int(text) for text in texts]]

    def encode_document(self, texts, **options):
        return self.documents[[int(text) for text in texts]]


@pytest.mark.parametrize("n_classes", [3, 25])
def test_all_five_at_every_depth(n_classes):
    torch.manual_seed(0)
    queries, documents = torch.randn(50, 8).double(), torch.randn(70, 8).double()
    labels, others = torch.arange(50) % n_classes, torch.arange(70) % n_classes
    evaluator = InformationRetrievalEvaluator(
        {str(row): str(row) for row in range(50)},
        {str(row): str(row) for row in range(70)},
        {str(q): {str(int(d)) for d in (others == labels[q]).nonzero()[:, 0]} for q in range(50)},
        mrr_at_k=KS,
        ndcg_at_k=KS,
        accuracy_at_k=KS,
        precision_recall_at_k=KS,
        map_at_k=KS,
        write_csv=False,
        score_functions={"cosine": cos_sim},
    )
    theirs = evaluator.compute_all_metrics(Known(queries, documents))["cosine"]
    ours = retrieval_report(queries, labels, documents, others, k=KS)
    for name, own in NAMES.items():
        for k in KS:
            assert ours[f"{own}@{k}"] == pytest.approx(theirs[f"{name}@k"][k], abs=1e-12), (own, k)
    # The one other figure, MRR, is cut off there and is of the whole gallery here.
    assert ours["mrr"] >= theirs["mrr@k"][max(KS)]
