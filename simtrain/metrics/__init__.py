"""Exact nearest neighbours in bounded memory; retrieval metrics as functions and as torchmetrics ``Metric``s."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simtrain.metrics.grouped import grouped_report
from simtrain.metrics.neighbors import top_k
from simtrain.metrics.report import retrieval_report, retrieval_scores

if TYPE_CHECKING:
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

__all__ = [
    "RetrievalHitRate",
    "RetrievalMAP",
    "RetrievalMetric",
    "RetrievalNDCG",
    "RetrievalPrecision",
    "RetrievalRPrecision",
    "RetrievalRecall",
    "RetrievalReciprocalRank",
    "grouped_report",
    "retrieval_report",
    "retrieval_scores",
    "top_k",
]


def __getattr__(name: str) -> Any:
    # The classes need torchmetrics, which takes seconds to import; the functions do not.
    if name in __all__:
        return getattr(importlib.import_module("simtrain.metrics.retrieval"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
