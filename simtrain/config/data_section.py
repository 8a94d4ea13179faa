"""The section ``data`` of a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from simtrain.config.limits import OneOf, limited

DATA_KINDS = ("pairs", "groups", "triplets")


@dataclass
class DataConfig:
    """Where the samples come from.

    ``train``, ``valid`` and ``test`` each are the path of a file (CSV, TSV or JSONL, each also gzipped, or Parquet), or
    of a folder of images with a sub-folder for each group, or a mapping with a ``path`` and any other setting of
    :class:`simtrain.runner.data_source.DataSource`.

    Attributes:
        kind: ``pairs`` (query, document), ``triplets`` (anchor, positive, negatives) or ``groups`` (item, group).
        train: Data to train on.
        valid: Data to validate on; optional.
        test: Data to evaluate on before and after training; optional. May also be of the kind ``query_gallery``.
        columns: Role → column name, where a file's columns are named otherwise.
        sampler: ``{type: …}`` of the order in training, such as ``{type: PKSampler, per_group: 4}``; null shuffles.
    """

    kind: str = limited("pairs", OneOf(DATA_KINDS))
    train: Any = None
    valid: Any = None
    test: Any = None
    columns: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] | None = None
