"""Exact nearest neighbours in bounded memory; retrieval metrics as functions and as torchmetrics ``Metric``s.

===================================  ============================================================================
wanted                               where
===================================  ============================================================================
all metrics of embeddings, as means  :func:`retrieval_report`
... by query; by class or subgroup   :func:`retrieval_scores`; :func:`grouped_report` of these
one metric, of known rankings        :func:`precision`, :func:`recall`, :func:`average_precision`, ...
... gathered in training             :class:`RetrievalPrecision`, :class:`RetrievalMAP`, ... (``AttachedMetric``)
nearest neighbours                   :func:`top_k`
pairs: AUC, errors, thresholds       :func:`pair_auc`, :func:`fnmr_at_fmr`; :class:`PairAUC`, :class:`PairFNMR`
the shape of the space               :func:`alignment`, :func:`uniformity`, :func:`effective_rank`
===================================  ============================================================================

Example:
    >>> import torch
    >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> report = retrieval_report(points, ["cat", "cat", "dog", "dog"], k=1)
    >>> report["precision@1"], report["mrr"]
    (1.0, 1.0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simtrain.metrics.formulas import (
    average_precision,
    graded_ndcg,
    hit_rate,
    ndcg,
    precision,
    r_precision,
    recall,
    reciprocal_rank,
)
from simtrain.metrics.geometry import alignment, effective_rank, uniformity
from simtrain.metrics.grouped import grouped_report
from simtrain.metrics.neighbors import top_k
from simtrain.metrics.report import retrieval_report, retrieval_scores
from simtrain.metrics.verification import ErrorRates, fnmr_at_fmr, pair_auc

if TYPE_CHECKING:
    from simtrain.metrics.batch_metric import BatchMetric
    from simtrain.metrics.geometry_metrics import Alignment, EffectiveRank, Uniformity
    from simtrain.metrics.pair_metrics import PairAUC, PairFNMR
    from simtrain.metrics.retrieval import (
        RetrievalHitRate,
        RetrievalMAP,
        RetrievalMetric,
        RetrievalNDCG,
        RetrievalPrecision,
        RetrievalRecall,
        RetrievalReciprocalRank,
        RetrievalRPrecision,
    )

# The classes need torchmetrics, which takes seconds to import; the functions do not.
_CLASSES = {
    "batch_metric": ("BatchMetric",),
    "geometry_metrics": ("Alignment", "EffectiveRank", "Uniformity"),
    "pair_metrics": ("PairAUC", "PairFNMR"),
    "retrieval": (
        "RetrievalHitRate",
        "RetrievalMAP",
        "RetrievalMetric",
        "RetrievalNDCG",
        "RetrievalPrecision",
        "RetrievalRPrecision",
        "RetrievalRecall",
        "RetrievalReciprocalRank",
    ),
}
_FILES = {name: file for file, names in _CLASSES.items() for name in names}

__all__ = [
    "Alignment",
    "BatchMetric",
    "EffectiveRank",
    "ErrorRates",
    "PairAUC",
    "PairFNMR",
    "RetrievalHitRate",
    "RetrievalMAP",
    "RetrievalMetric",
    "RetrievalNDCG",
    "RetrievalPrecision",
    "RetrievalRPrecision",
    "RetrievalRecall",
    "RetrievalReciprocalRank",
    "Uniformity",
    "alignment",
    "average_precision",
    "effective_rank",
    "fnmr_at_fmr",
    "graded_ndcg",
    "grouped_report",
    "hit_rate",
    "ndcg",
    "pair_auc",
    "precision",
    "r_precision",
    "recall",
    "reciprocal_rank",
    "retrieval_report",
    "retrieval_scores",
    "top_k",
    "uniformity",
]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(importlib.import_module(f"simtrain.metrics.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
