"""The points of an index: vectors, ids and payloads, checked, written and read without pickle."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from simtrain.errors import DataError, ServableError

VECTORS_FILE = "vectors.safetensors"
PAYLOADS_FILE = "points.jsonl"

PointId: TypeAlias = int | str
Vectors: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class IndexPoints:
    """Checked points of an index.

    Attributes:
        vectors: Shape ``(n, dim)``, float32, finite.
        ids: Non-negative integers or texts of UUIDs, all different.
        payloads: A dict of JSON values for each.
    """

    vectors: Vectors
    ids: Sequence[PointId]
    payloads: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return int(self.vectors.shape[1])


def check_vectors(vectors: Any, dim: int | None = None) -> Vectors:
    """Vectors as a float32 array of shape ``(n, dim)``.

    Args:
        vectors: Array, tensor or lists of numbers, shape ``(n, dim)``; ``(dim,)`` is taken as one vector.
        dim: Number of dimensions that they must have. Default: any.

    Raises:
        DataError: They are no numbers, not finite, or of another shape.

    Example:
        >>> check_vectors([1, 2]).shape
        (1, 2)
    """
    given = vectors.detach().float().cpu().numpy() if isinstance(vectors, torch.Tensor) else vectors
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is named below
            array = np.asarray(given, dtype=np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise DataError(f"vectors must be numbers of shape (n, dim), got {type(vectors).__name__} ({error})") from error
    array = array[None] if array.ndim == 1 and array.size else array
    if array.ndim != 2:
        raise DataError(f"vectors must have the shape (n, dim), got {array.shape}")
    if dim is not None and array.shape[1] != dim:
        raise DataError(f"vectors must have {dim} dimensions, as the index has, got {array.shape[1]}; same model?")
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise DataError(f"vectors hold NaN or infinite values, first in row {int(np.argmin(finite))}")
    return array


def check_points(vectors: Any, payloads: Sequence[Mapping[str, Any]], ids: Sequence[Any] | None) -> IndexPoints:
    """Check what an index is to be made of.

    Raises:
        DataError: There are no vectors, numbers of items differ, or an id or payload cannot be stored.
    """
    array = check_vectors(vectors)
    if not array.size:
        raise DataError(f"an index needs at least one vector, got shape {array.shape}")
    ids = range(len(array)) if ids is None else ids
    for name, given in (("payloads", payloads), ("ids", ids)):
        if len(given) != len(array):
            raise DataError(f"{name} must be one for each of the {len(array)} vectors, got {len(given)}")
    return IndexPoints(array, _checked_ids(ids), [_checked_payload(*item) for item in enumerate(payloads)])


def write_points(points: IndexPoints, folder: Path) -> None:
    """Write ``vectors.safetensors`` and ``points.jsonl`` (a line for each point)."""
    save_file({"vectors": points.vectors}, folder / VECTORS_FILE)
    with (folder / PAYLOADS_FILE).open("w", encoding="utf-8") as file:
        for point_id, payload in zip(points.ids, points.payloads, strict=True):
            file.write(json.dumps({"id": point_id, "payload": payload}) + "\n")


def read_points(folder: Path) -> IndexPoints:
    """Read what :func:`write_points` wrote.

    Raises:
        ServableError: A file is missing or damaged; the message names it.
    """
    vectors = _read_vectors(folder / VECTORS_FILE)
    lines = list(_read_lines(folder / PAYLOADS_FILE))
    try:
        return check_points(vectors, [line["payload"] for line in lines], [line["id"] for line in lines])
    except (DataError, KeyError, TypeError) as error:
        raise ServableError(f"{folder} does not hold the points of an index: {error}") from error


def _read_vectors(file: Path) -> Any:
    try:
        return load_file(file)["vectors"]
    except FileNotFoundError as error:
        raise ServableError(f"{file} is missing; copy the whole index folder or build it again") from error
    except (SafetensorError, OSError, KeyError) as error:
        raise ServableError(f"{file} is damaged ({error}); copy it again or build the index again") from error


def _read_lines(file: Path) -> Iterator[Any]:
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    except FileNotFoundError as error:
        raise ServableError(f"{file} is missing; copy the whole index folder or build it again") from error
    except (OSError, ValueError) as error:
        raise ServableError(f"{file} is damaged ({error}); copy it again or build the index again") from error


def _checked_ids(ids: Sequence[Any]) -> list[PointId]:
    checked = [_checked_id(position, point_id) for position, point_id in enumerate(ids)]
    most_common, count = Counter(checked).most_common(1)[0]
    if count > 1:
        raise DataError(f"ids must all be different, {most_common!r} comes {count} times")
    return checked


def _checked_id(position: int, point_id: Any) -> PointId:
    if isinstance(point_id, (int, np.integer)) and not isinstance(point_id, bool) and 0 <= point_id < 2**64:
        return int(point_id)
    try:
        return str(uuid.UUID(str(point_id)))
    except ValueError as error:
        raise DataError(
            f"id {position} must be an integer of 0 or more or a UUID, got {point_id!r}; "
            f"put names of your own into the payload"
        ) from error


def _checked_payload(position: int, payload: Any) -> dict[str, Any]:
    if not isinstance(payload, Mapping) or not all(isinstance(key, str) for key in payload):
        raise DataError(f"payload {position} must be a dict with texts as keys, got {payload!r:.80}")
    try:
        json.dumps(dict(payload), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"payload {position} must hold JSON values only: {error}") from error
    return dict(payload)
