"""A search index in a folder, searched by Qdrant inside this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from simtrain.encoders.positive_size import positive_size
from simtrain.errors import ConfigError, ServableError, nearest
from simtrain.models.folder_commit import FolderFormat
from simtrain.serving.hit import Hit
from simtrain.serving.index_points import check_points, check_vectors, read_points, write_points
from simtrain.serving.model_link import check_model, link_to, linked_model
from simtrain.serving.qdrant_memory import DISTANCES, search_engine, start_engine

INDEX_FOLDER = FolderFormat("simtrain-index", version=1, file="index.json", prefix="points")


class QdrantIndex:
    """Vectors with payloads in a folder, searched exactly by Qdrant's embedded engine. No server.

    Made with :meth:`create` or :meth:`open`. The folder holds safetensors and JSON only, can be copied and
    moved, and may be open in any number of processes.

    Args:
        path: The index's folder.
        settings: What its ``index.json`` holds.
        client: A Qdrant client that holds the points.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with QdrantIndex.create(folder, [[1, 0], [0, 1]], [{"text": "east"}, {"text": "north"}]) as index:
        ...     [[(hit.id, hit.payload["text"]) for hit in hits] for hits in index.search([[0.1, 0.9]], k=1)]
        [[(1, 'north')]]
    """

    def __init__(self, path: Path, settings: dict[str, Any], client: Any) -> None:
        self.path = path
        self._settings = settings
        self._client: Any = client

    @classmethod
    def create(
        cls,
        path: str | Path,
        vectors: Any,
        payloads: Sequence[Mapping[str, Any]],
        *,
        model_path: str | Path | None = None,
        ids: Sequence[Any] | None = None,
        distance: str = "cosine",
        show_progress: bool | None = None,
    ) -> QdrantIndex:
        """Build an index in the folder ``path`` and open it.

        The folder changes all at once: interrupted, it holds the former index or the new one.

        Args:
            path: A folder that is missing, empty, or holds an index, which is replaced.
            vectors: Array or tensor of shape ``(n, dim)``, n of 1 or more; kept as float32.
            payloads: For each vector a dict of JSON values, returned with hits.
            model_path: Folder of the saved model that made the vectors, kept in the index.
            ids: For each vector an integer of 0 or more or a UUID. Default: the row numbers.
            distance: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
            show_progress: Whether to show a progress bar. Default: if it takes over a second in a terminal.

        Raises:
            ConfigError: ``distance`` is unknown.
            DataError: A vector, payload or id cannot be stored.
            MissingExtraError: qdrant-client is not installed.
            ServableError: The folder holds something else, or ``model_path`` is no saved model.
        """
        folder = Path(path)
        if distance not in DISTANCES:
            raise ConfigError(f"unknown distance {distance!r}; {nearest(str(distance), DISTANCES)}")
        if not INDEX_FOLDER.is_free(folder):
            raise ServableError(f"{folder} holds something that is no index, and is not replaced; give another folder")
        points = check_points(vectors, payloads, ids)
        link = link_to(None if model_path is None else Path(model_path), folder)
        client = start_engine(points, distance, show_progress)
        settings = {"count": len(points), "dim": points.dim, "distance": distance, **link}
        INDEX_FOLDER.commit(folder, settings, lambda parts: write_points(points, parts))
        return cls(folder, INDEX_FOLDER.read(folder)[0], client)

    @classmethod
    def open(cls, path: str | Path) -> QdrantIndex:
        """Open the index in the folder ``path``.

        Raises:
            ServableError: There is none, or a file is missing or damaged; the message names it.
            MissingExtraError: qdrant-client is not installed.
        """
        folder = Path(path)
        settings, parts = INDEX_FOLDER.read(folder)
        points = read_points(parts)
        if [settings.get("count"), settings.get("dim")] != [len(points), points.dim]:
            raise ServableError(
                f"{folder} should hold {settings.get('count')} vectors of {settings.get('dim')} dimensions, it holds "
                f"{len(points)} of {points.dim}; copy it again or build it again"
            )
        if settings.get("distance") not in DISTANCES:
            raise ServableError(f"{folder} has the unknown distance {settings.get('distance')!r}; build it again")
        return cls(folder, settings, start_engine(points, settings["distance"]))

    def search(self, vectors: Any, k: int = 10) -> list[list[Hit]]:
        """Find the nearest items of each query vector.

        Args:
            vectors: Queries, shape ``(n, dim)``; ``(dim,)`` is one query.
            k: Number of hits wanted. An index of fewer items gives all of them.

        Returns:
            For each query its hits, nearest first.

        Raises:
            ConfigError: ``k`` is not a positive integer.
            DataError: The queries are of another dimension or not finite.
            ServableError: The index is closed, or its model was saved again since.
        """
        if self._client is None:
            raise ServableError(f"the index {self.path} is closed; open it again with QdrantIndex.open")
        check_model(self._settings, self.path)
        queries = check_vectors(vectors, self._settings["dim"])
        return search_engine(self._client, queries, self._settings["distance"], min(positive_size("k", k), len(self)))

    @property
    def info(self) -> dict[str, Any]:
        """What ``index.json`` holds: count, dim, distance, model, format and versions."""
        return dict(self._settings)

    @property
    def model_path(self) -> Path | None:
        """Folder of the model that made the vectors, or None where none was given."""
        return linked_model(self._settings, self.path)

    def __len__(self) -> int:
        return int(self._settings["count"])

    def close(self) -> None:
        """Free the memory. The folder stays."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def __enter__(self) -> QdrantIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
