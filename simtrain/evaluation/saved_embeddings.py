"""Evaluation without a model: from embeddings that were saved before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from simtrain.data import QueryGallery
from simtrain.data.loaders import read_samples
from simtrain.data.samples import SimilarityPairSample, SimilarityTripletSample
from simtrain.errors import DataError
from simtrain.evaluation.judged_search import JudgedSearch
from simtrain.evaluation.post_processing import PostProcessing
from simtrain.evaluation.retrieval import RetrievalResult, RetrievalTask, retrieval_task
from simtrain.metrics.formulas import Denominator
from simtrain.metrics.unmatched import Empty

NAME = "embeddings"
SUFFIXES = (".npy", ".npz", ".safetensors")


def read_embeddings(path: str | Path) -> Tensor:
    """Embeddings of a file, or of the files of a folder in the order of their names.

    Args:
        path: ``.npy`` (mapped into memory, as :command:`simtrain encode` writes it), ``.npz`` or ``.safetensors`` (the
            array called ``embeddings``, or the only one), or a folder of such files.

    Returns:
        Shape ``(rows, dim)``. No code is read from any of them.

    Raises:
        DataError: There is no such file, or it holds no two-dimensional array of floating-point numbers.
    """
    source = Path(path)
    if source.is_dir():
        files = sorted(file for file in source.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise DataError(f"the folder {str(source)!r} has no file of embeddings ({', '.join(SUFFIXES)})")
        return torch.cat([read_embeddings(file) for file in files])
    if not source.is_file():
        raise DataError(f"there is no file or folder {str(source)!r} to read embeddings from")
    if source.suffix not in SUFFIXES:
        raise DataError(f"embeddings are read from {', '.join(SUFFIXES)} or a folder of these, got {str(source)!r}")
    try:
        rows = _read(source)
    except (ValueError, OSError, EOFError, SafetensorError) as error:
        raise DataError(f"{source} cannot be read as embeddings: {error}") from None
    if rows.ndim != 2 or not rows.is_floating_point():
        raise DataError(
            f"{source} should hold floating-point rows of shape (rows, dim), got {rows.dtype} of shape "
            f"{tuple(rows.shape)}"
        )
    return rows


def evaluate_embeddings(
    data: Any,
    embeddings: Tensor | str | Path,
    gallery_embeddings: Tensor | str | Path | None = None,
    k: int | Sequence[int] = (1, 5, 10),
    *,
    post: PostProcessing | None = None,
    denominator: Denominator = "min_k_relevant",
    empty: Empty = "skip",
) -> RetrievalResult:
    """Measure saved embeddings on the test set that they were made of: what :func:`simtrain.evaluate` gives.

    Args:
        data: Samples, or a query/gallery test.
        embeddings: Of groups a row a sample; of pairs a row for each one's query; of triplets for each one's anchor; of
            a query/gallery test a row a query. A tensor, or where :func:`read_embeddings` finds them.
        gallery_embeddings: Of pairs a row for each one's document; of a query/gallery test a row a gallery item.
        k: Depths of the metrics at k.
        post: What is done to the embeddings.
        denominator: Divisor of ``map@k``, see :func:`simtrain.evaluate`.
        empty: What to do about queries without a relevant item, see there.

    Raises:
        ConfigError: An option is not accepted.
        DataError: Numbers of rows do not fit the data, or the gallery's are missing.

    Example:
        >>> samples = [SimilarityPairSample("q", "d"), SimilarityPairSample("r", "e")]
        >>> evaluate_embeddings(samples, torch.eye(2), torch.eye(2), k=(1,)).metrics["recall@1"]
        1.0
    """
    words: dict[str, Any] = {"k": k, "post": post, "denominator": denominator, "empty": empty}
    task, query_rows, gallery_rows = task_rows(data)
    queries = _fitting(embeddings, query_rows, "embeddings")
    if task.gallery is None:
        if gallery_embeddings is not None:
            raise DataError("groups are searched among themselves: give their embeddings alone")
        return task.score(queries, **words)
    if gallery_embeddings is None:
        raise DataError("the data have documents: give their embeddings as gallery_embeddings, beside the queries'")
    assert gallery_rows is not None
    return task.score(queries, _fitting(gallery_embeddings, gallery_rows, "gallery_embeddings"), **words)


def task_rows(data: Any) -> tuple[RetrievalTask, tuple[list[int], int], tuple[list[int], int] | None]:
    """A task, and for both of its sides which row each item has, and how many rows there are.

    Raises:
        DataError: As :func:`retrieval_task`; of triplets, since their negatives have no rows.
    """
    task = retrieval_task(data)
    samples = [] if isinstance(data, (QueryGallery, JudgedSearch)) else read_samples(data)
    if samples and isinstance(samples[0], SimilarityTripletSample):
        raise DataError("saved embeddings of triplets have no rows for the negatives; give pairs or groups")
    if samples and isinstance(samples[0], SimilarityPairSample):
        sides = [[sample.obj_a for sample in samples], [sample.obj_b for sample in samples]]
        # The first row of equal items stands for all: they have one embedding.
        first = [sorted({item: row for row, item in reversed(list(enumerate(side)))}.values()) for side in sides]
        return task, (first[0], len(samples)), (first[1], len(samples))
    n_queries = len(task.queries)
    gallery = None if task.gallery is None else (list(range(len(task.gallery))), len(task.gallery))
    return task, (list(range(n_queries)), n_queries), gallery


def _fitting(given: Tensor | str | Path, rows: tuple[list[int], int], name: str) -> Tensor:
    found = given if isinstance(given, Tensor) else read_embeddings(given)
    order, size = rows
    if len(found) != size:
        raise DataError(f"{name} has {len(found)} rows for {size} samples; give one a sample, in the file's order")
    return found if len(order) == size else found[order]


def _read(source: Path) -> Tensor:
    if source.suffix == ".npy":
        # Copy on write: torch wants to be allowed to change what it shares.
        return torch.from_numpy(np.load(source, mmap_mode="c", allow_pickle=False))
    if source.suffix == ".npz":
        with np.load(source, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays[_name(list(arrays), source)])
    with safe_open(source, "pt") as tensors:
        found: Tensor = tensors.get_tensor(_name(list(tensors.keys()), source))
        return found


def _name(names: Sequence[str], source: Path) -> str:
    if NAME in names or len(names) == 1:
        return NAME if NAME in names else names[0]
    raise DataError(f"{source} should hold an array called {NAME!r}, or one alone, got {sorted(names)}")
