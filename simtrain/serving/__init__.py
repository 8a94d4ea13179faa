"""Serving: the search index."""

from __future__ import annotations

from simtrain.serving.hit import Hit
from simtrain.serving.qdrant_index import QdrantIndex

__all__ = [
    "Hit",
    "QdrantIndex",
]
