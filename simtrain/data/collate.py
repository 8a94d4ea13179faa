"""The collate functions of loaders: raw samples in, encoder inputs and targets out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simtrain.data.batches import Targets, collate_samples

Features = dict[str, Any]


class EncoderCollate:
    """Collate samples for a set of encoders; runs in the loader's workers.

    Args:
        collate_fns: Encoder name → its collate function (picklable).

    Returns of a call:
        ``(features, targets)``: features by encoder name, targets for losses and metrics.

    Example:
        >>> from simtrain.data import SimilarityGroupSample
        >>> collate = EncoderCollate({"length": lambda items: [len(item) for item in items]})
        >>> collate([SimilarityGroupSample("ab", 1), SimilarityGroupSample("abc", 2)])
        ({'length': [2, 3]}, {'groups': tensor([1, 2])})
    """

    def __init__(self, collate_fns: Mapping[str, Callable[[Sequence[Any]], Any]]) -> None:
        self.collate_fns = dict(collate_fns)

    def __call__(self, samples: Sequence[Any]) -> tuple[Features, Targets]:
        """Collate samples of one kind."""
        batch = collate_samples(samples)
        return self.features(batch.objects), batch.targets

    def features(self, objects: Sequence[Any]) -> Features:
        """Collate raw objects for each encoder."""
        return {name: collate(objects) for name, collate in self.collate_fns.items()}
