"""How samples become a batch: the objects to encode, and the targets that losses and metrics take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample
from simtrain.data.sides import DOCUMENT, QUERY
from simtrain.errors import DataError

Targets = dict[str, Tensor]


class SampleBatch(NamedTuple):
    """A batch whose objects no encoder has collated yet.

    Attributes:
        objects: Raw items in the order of the embeddings' rows.
        targets: What losses and metrics take beside the embeddings.
        sides: Code of each object's side (:mod:`simtrain.data.sides`); None where the sides are equal.
        numbers: Row of the data set that each object is from, for messages; None where that is not known.
    """

    objects: list[Any]
    targets: Targets
    sides: list[int] | None = None
    numbers: list[int] | None = None


@dataclass(frozen=True)
class BatchLayout:
    """How one kind of sample lies in a batch.

    Attributes:
        objects: Samples → raw items, in the order of the embeddings' rows.
        labels: Samples → label tensors with one row a sample; they can be stacked for a whole data set.
        targets: Label tensors of a batch → the targets of that batch.
        rows: ``(sample numbers of a batch, their label tensors, size of the data set)`` → where the batch's objects
            stand among the objects of the whole data set.
        sides: Samples → code of each object's side, or None where the sides are equal.
        owners: Samples → which of them each object is of, as positions.
    """

    objects: Callable[[Sequence[Any]], list[Any]]
    labels: Callable[[Sequence[Any]], Targets]
    targets: Callable[[Mapping[str, Tensor]], Targets]
    rows: Callable[[Tensor, Mapping[str, Tensor], int], Tensor]
    sides: Callable[[Sequence[Any]], list[int] | None]
    owners: Callable[[Sequence[Any]], list[int]]


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


def pair_rows(numbers: Tensor, labels: Mapping[str, Tensor], dataset_size: int) -> Tensor:
    """Rows of the pairs' first objects, then of their second ones."""
    return torch.cat([numbers, numbers + dataset_size])


def pair_sides(samples: Sequence[SimilarityPairSample]) -> list[int]:
    """The first objects are queries, the second ones documents."""
    return [QUERY] * len(samples) + [DOCUMENT] * len(samples)


def pair_owners(samples: Sequence[SimilarityPairSample]) -> list[int]:
    """Every pair once for its first object, then for its second one."""
    return [*range(len(samples)), *range(len(samples))]


def triplet_objects(samples: Sequence[SimilarityTripletSample]) -> list[Any]:
    """All anchors, all positives, then the negatives of each sample."""
    negatives = [negative for sample in samples for negative in sample.negatives]
    return [*(sample.anchor for sample in samples), *(sample.positive for sample in samples), *negatives]


def triplet_labels(samples: Sequence[SimilarityTripletSample]) -> Targets:
    """How many negatives each sample has, and how many the samples before it have."""
    counts = torch.tensor([len(sample.negatives) for sample in samples], dtype=torch.long)
    return {"n_negatives": counts, "first_negative": counts.cumsum(0) - counts}


def triplet_targets(labels: Mapping[str, Tensor]) -> Targets:
    """Targets of a triplet batch, for pairwise and for group losses.

    ``pairs (n + negatives, 2)``: each anchor with its positive, then with each of its negatives; ``labels`` 1 for the
    former and 0 for the latter; ``subgroups`` of zeros; ``groups``: an anchor and its positive share one, each negative
    has its own.
    """
    counts = labels["n_negatives"]
    size, n_negatives = len(counts), int(counts.sum())
    anchors = torch.arange(size)
    asked = torch.cat([anchors, anchors.repeat_interleave(counts)])
    found = torch.arange(size, 2 * size + n_negatives)
    return {
        "pairs": torch.stack([asked, found], dim=1),
        "labels": torch.cat([torch.ones(size), torch.zeros(n_negatives)]),
        "subgroups": torch.zeros(2 * size + n_negatives, dtype=torch.long),
        "groups": torch.cat([anchors, anchors, torch.arange(size, size + n_negatives)]),
    }


def triplet_rows(numbers: Tensor, labels: Mapping[str, Tensor], dataset_size: int) -> Tensor:
    """Rows of the anchors, of the positives, then of the negatives."""
    counts = labels["n_negatives"]
    within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    negatives = labels["first_negative"].repeat_interleave(counts) + within + 2 * dataset_size
    return torch.cat([numbers, numbers + dataset_size, negatives])


def triplet_sides(samples: Sequence[SimilarityTripletSample]) -> list[int]:
    """The anchors are queries, positives and negatives documents."""
    return [QUERY] * len(samples) + [DOCUMENT] * sum(1 + len(sample.negatives) for sample in samples)


def triplet_owners(samples: Sequence[SimilarityTripletSample]) -> list[int]:
    """Every triplet for its anchor, for its positive, then for each of its negatives."""
    negatives = [number for number, sample in enumerate(samples) for _ in sample.negatives]
    return [*range(len(samples)), *range(len(samples)), *negatives]


def group_objects(samples: Sequence[SimilarityGroupSample]) -> list[Any]:
    """The items."""
    return [sample.obj for sample in samples]


def group_labels(samples: Sequence[SimilarityGroupSample]) -> Targets:
    """Group of each item."""
    return {"groups": torch.tensor([sample.group for sample in samples], dtype=torch.long)}


def group_targets(labels: Mapping[str, Tensor]) -> Targets:
    """Targets of a group batch: ``groups (n,)``."""
    return {"groups": labels["groups"]}


def group_rows(numbers: Tensor, labels: Mapping[str, Tensor], dataset_size: int) -> Tensor:
    """Rows of the items: their own numbers."""
    return numbers


def group_sides(samples: Sequence[SimilarityGroupSample]) -> None:
    """Items of groups have no sides."""
    return None


def group_owners(samples: Sequence[SimilarityGroupSample]) -> list[int]:
    """Each item is its sample's."""
    return list(range(len(samples)))


PAIRS = BatchLayout(pair_objects, pair_labels, pair_targets, pair_rows, pair_sides, pair_owners)
GROUPS = BatchLayout(group_objects, group_labels, group_targets, group_rows, group_sides, group_owners)
TRIPLETS = BatchLayout(triplet_objects, triplet_labels, triplet_targets, triplet_rows, triplet_sides, triplet_owners)
LAYOUTS: dict[type, BatchLayout] = {
    SimilarityPairSample: PAIRS,
    SimilarityGroupSample: GROUPS,
    SimilarityTripletSample: TRIPLETS,
}


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
    return SampleBatch(layout.objects(samples), layout.targets(layout.labels(samples)), layout.sides(samples))
