"""Qdrant's engine inside this process, without a server and without files of its own.

The files that Qdrant's local mode would keep hold pickles, which can run code when they are opened. So the
points are kept in safetensors and JSON (:mod:`simtrain.serving.index_points`) and given to the engine when an
index is opened.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from simtrain.errors import import_extra
from simtrain.models.progress import track
from simtrain.serving.hit import Hit
from simtrain.serving.index_points import IndexPoints, Vectors

COLLECTION = "items"
# Cosine is the dot product of vectors brought to length 1 beforehand: the engine's own cosine does that with all
# of its vectors again at every query.
DISTANCES = {"cosine": "DOT", "dot": "DOT", "euclidean": "EUCLID"}
UPLOAD_BATCH = 1024


def start_engine(points: IndexPoints, distance: str, show_progress: bool | None = None) -> Any:
    """A Qdrant client that holds ``points``.

    Args:
        points: What to search in.
        distance: One of :data:`DISTANCES`.
        show_progress: See :func:`simtrain.models.progress.track`.

    Raises:
        MissingExtraError: qdrant-client is not installed.
    """
    qdrant = import_extra("qdrant_client", "index")
    client = qdrant.QdrantClient(":memory:")
    measure = getattr(qdrant.models.Distance, DISTANCES[distance])
    vectors = scaled(points.vectors, distance)
    client.create_collection(COLLECTION, qdrant.models.VectorParams(size=points.dim, distance=measure))
    starts = range(0, len(points), UPLOAD_BATCH)
    for start in track(starts, len(points), "Indexing", show_progress, size=UPLOAD_BATCH):
        part = slice(start, start + UPLOAD_BATCH)
        batch = qdrant.models.Batch(
            ids=list(points.ids[part]), vectors=vectors[part].tolist(), payloads=list(points.payloads[part])
        )
        with warnings.catch_warnings():
            # Above 20,000 points it advises a server, by a warning. Exact search there still takes milliseconds.
            warnings.filterwarnings("ignore", message="Local mode is not recommended")
            client.upsert(COLLECTION, batch)
    return client


def search_engine(client: Any, queries: Vectors, distance: str, k: int) -> list[list[Hit]]:
    """The ``k`` nearest points of each query, nearest first."""
    qdrant = import_extra("qdrant_client", "index")
    requests = [
        qdrant.models.QueryRequest(query=query.tolist(), limit=k, with_payload=True)
        for query in scaled(queries, distance)
    ]
    answers = client.query_batch_points(COLLECTION, requests) if requests else []
    return [[Hit(point.id, point.score, point.payload or {}) for point in answer.points] for answer in answers]


def scaled(vectors: Vectors, distance: str) -> Vectors:
    """Vectors as the engine takes them: of length 1 for ``"cosine"``; zero vectors stay as they are.

    Example:
        >>> scaled(np.array([[0.0, 2.0], [0.0, 0.0]], np.float32), "cosine")
        array([[0., 1.],
               [0., 0.]], dtype=float32)
    """
    if distance != "cosine":
        return vectors
    # The largest element first: squares of very large or very small numbers leave the range of float32.
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    shaped = vectors / np.where(largest > 0, largest, 1)
    lengths = np.linalg.norm(shaped, axis=1, keepdims=True)
    return (shaped / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)
