"""How samples become a batch: the objects to encode, and the targets that losses and metrics take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample
from simtrain.errors import DataError

Targets = dict[str, Tensor]


class SampleBatch(NamedTuple):
    """A batch whose objects no encoder has collated yet.

    Attributes:
        objects: Raw items in the order of the embeddings' rows.
        targets: What losses and metrics take beside the embeddings.
    """

    objects: list[Any]
    targets: Targets


@dataclass(frozen=True)
class BatchLayout:
    """How one kind of sample lies in a batch.

    Attributes:
        objects: Samples → raw items, in the order of the embeddings' rows.
        labels: Samples → label tensors with one row a sample; they can be stacked for a whole data set.
        targets: Label tensors of a batch → the targets of that batch.
        rows: ``(sample numbers of a batch, size of the data set)`` → where the batch's objects stand among the
            objects of the whole data set.
    """

    objects: Callable[[Sequence[Any]], list[Any]]
    labels: Callable[[Sequence[Any]], Targets]
    targets: Callable[[Mapping[str, Tensor]], Targets]
    rows: Callable[[Tensor, int], Tensor]


def pair_objects(samples: Sequence[SimilarityPairSample]) -> list[Any]:
    """All first objects (queries), then all second objects (documents)."""
    return [sample.obj_a for sample in samples] + [sample.obj_b for sample in samples]


def pair_labels(samples: Sequence[SimilarityPairSample]) -> Targets:
    """Score and subgroup of each pair."""
    return {
        "labels": torch.tensor([sample.score for sample in samples], dtype=torch.float32),
        "subgroups": torch.tensor([sample.subgroup for sample in samples], dtype=torch.long),
    }


def pair_targets(labels: Mapping[str, Tensor]) -> Targets:
    """Targets of a pair batch: ``pairs (n, 2)``, ``labels (n,)``, ``subgroups (2n,)``."""
    size = len(labels["labels"])
    first = torch.arange(size)
    return {
        "pairs": torch.stack([first, first + size], dim=1),
        "labels": labels["labels"],
        "subgroups": labels["subgroups"].repeat(2),
    }


def pair_rows(numbers: Tensor, dataset_size: int) -> Tensor:
    """Rows of the pairs' first objects, then of their second ones."""
    return torch.cat([numbers, numbers + dataset_size])


def group_objects(samples: Sequence[SimilarityGroupSample]) -> list[Any]:
    """The items."""
    return [sample.obj for sample in samples]


def group_labels(samples: Sequence[SimilarityGroupSample]) -> Targets:
    """Group of each item."""
    return {"groups": torch.tensor([sample.group for sample in samples], dtype=torch.long)}


def group_targets(labels: Mapping[str, Tensor]) -> Targets:
    """Targets of a group batch: ``groups (n,)``."""
    return {"groups": labels["groups"]}


def group_rows(numbers: Tensor, dataset_size: int) -> Tensor:
    """Rows of the items: their own numbers."""
    return numbers


PAIRS = BatchLayout(pair_objects, pair_labels, pair_targets, pair_rows)
GROUPS = BatchLayout(group_objects, group_labels, group_targets, group_rows)
LAYOUTS: dict[type, BatchLayout] = {SimilarityPairSample: PAIRS, SimilarityGroupSample: GROUPS}


def layout_of(samples: Sequence[Any]) -> BatchLayout:
    """Layout for a batch of samples, by their type.

    Raises:
        DataError: There is no sample, they are not samples, or they are of several kinds.
    """
    kinds = {type(sample) for sample in samples}
    if len(kinds) != 1 or not kinds <= LAYOUTS.keys():
        accepted = " or ".join(kind.__name__ for kind in LAYOUTS)
        got = ", ".join(sorted(kind.__name__ for kind in kinds)) or "no sample"
        raise DataError(f"a batch should hold samples of one kind ({accepted}), got {got}")
    return LAYOUTS[kinds.pop()]


def collate_samples(samples: Sequence[Any]) -> SampleBatch:
    """Turn samples into raw objects and targets.

    Example:
        >>> batch = collate_samples([SimilarityPairSample("a", "b"), SimilarityPairSample("c", "d")])
        >>> batch.objects, batch.targets["pairs"].tolist()
        (['a', 'c', 'b', 'd'], [[0, 2], [1, 3]])
    """
    layout = layout_of(samples)
    return SampleBatch(layout.objects(samples), layout.targets(layout.labels(samples)))
