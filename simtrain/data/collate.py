"""The collate functions of loaders: raw samples in, encoder inputs and targets out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simtrain.data.batches import SampleBatch, Targets, collate_samples
from simtrain.errors import DataError

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

    def of(self, batch: Any) -> tuple[Features, Targets]:
        """Collate a batch in any form: samples, a :class:`SampleBatch`, or ``(features, targets)`` already.

        Raises:
            DataError: It is none of these.
        """
        if isinstance(batch, SampleBatch):
            return self.features(batch.objects), batch.targets
        if isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[0], Mapping):
            return dict(batch[0]), dict(batch[1])
        if isinstance(batch, Sequence):
            return self(batch)
        raise DataError(f"a batch should be a list of samples or (features, targets), got {type(batch).__name__}")

    def features(self, objects: Sequence[Any]) -> Features:
        """Collate raw objects for each encoder."""
        return {name: collate(objects) for name, collate in self.collate_fns.items()}
