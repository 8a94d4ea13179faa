"""The collate functions of loaders: raw samples in, encoder inputs and targets out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simtrain.data.batches import SampleBatch, Targets, collate_samples
from simtrain.data.item_meta import ItemMeta
from simtrain.errors import DataError

Features = dict[str, Any]

#: Key of what heads are told of the items, beside the encoders' batches; no encoder can be named so.
META = "meta"


class EncoderCollate:
    """Collate samples for a set of encoders; runs in the loader's workers.

    Args:
        collate_fns: Encoder name → its collate function (picklable).
        side_fns: Encoder name → function that marks items by their side first, for encoders that have one.
        meta: Says what heads are told of each item; None for nothing.

    Returns of a call:
        ``(features, targets)``: features by encoder name (and ``"meta"``), targets for losses and metrics.

    Example:
        >>> from simtrain.data import SimilarityGroupSample
        >>> collate = EncoderCollate({"length": lambda items: [len(item) for item in items]})
        >>> collate([SimilarityGroupSample("ab", 1), SimilarityGroupSample("abc", 2)])
        ({'length': [2, 3]}, {'groups': tensor([1, 2])})
    """

    def __init__(
        self,
        collate_fns: Mapping[str, Callable[[Sequence[Any]], Any]],
        side_fns: Mapping[str, Callable[[Sequence[Any], Sequence[int]], list[Any]]] | None = None,
        meta: ItemMeta | None = None,
    ) -> None:
        self.collate_fns, self.side_fns, self.meta = dict(collate_fns), dict(side_fns or {}), meta

    def __call__(self, samples: Sequence[Any]) -> tuple[Features, Targets]:
        """Collate samples of one kind."""
        batch = collate_samples(samples)
        return self.features(batch.objects, batch.sides), batch.targets

    def of(self, batch: Any) -> tuple[Features, Targets]:
        """Collate a batch in any form: samples, a :class:`SampleBatch`, or ``(features, targets)`` already.

        Raises:
            DataError: It is none of these.
        """
        if isinstance(batch, SampleBatch):
            return self._features_of(batch), batch.targets
        if isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[0], Mapping):
            return dict(batch[0]), dict(batch[1])
        if isinstance(batch, Sequence):
            return self(batch)
        raise DataError(f"a batch should be a list of samples or (features, targets), got {type(batch).__name__}")

    def features(self, objects: Sequence[Any], sides: Sequence[int] | None = None) -> Features:
        """Collate raw objects for each encoder.

        Args:
            objects: Raw items.
            sides: Code of each one's side; None for items without sides.
        """
        features = {name: collate(self.marked(name, objects, sides)) for name, collate in self.collate_fns.items()}
        known = None if self.meta is None else self.meta(objects, sides)
        return features if known is None else {**features, META: known}

    def _features_of(self, batch: SampleBatch) -> Features:
        try:
            return self.features(batch.objects, batch.sides)
        except DataError as error:
            if batch.numbers is None or not hasattr(error, "position"):
                raise
            # The encoder counts in the batch; the user counts in the data set.
            row = f"row {batch.numbers[error.position]} of the data set"
            raise DataError(f"{row} {error.reason}") from error  # type: ignore[attr-defined]

    def marked(self, name: str, objects: Sequence[Any], sides: Sequence[int] | None) -> Sequence[Any]:
        """The objects as one encoder takes them: marked by their side where it has a mark for that."""
        mark = self.side_fns.get(name)
        return objects if mark is None or sides is None else mark(objects, sides)
