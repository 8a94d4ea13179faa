"""Samples that are known by their row in the data set, so that an error about one of many says which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset, Subset

from simtrain.data.batches import SampleBatch, layout_of
from simtrain.data.item_numbers import item_numbers
from simtrain.errors import DataError, SimtrainError


def sample_place(dataset: Any, number: int) -> str:
    """What messages call a sample: its row in the data set, and in the file where the data set knows that.

    Example:
        >>> sample_place(["a", "b"], 1)
        'row 1 of the data set'
    """
    row = f"row {number} of the data set"
    while isinstance(dataset, Subset):
        dataset, number = dataset.dataset, dataset.indices[number]
    place = getattr(dataset, "place", None)
    return f"{row} ({place(number)})" if callable(place) and place(number) else row


def read_sample(dataset: Any, number: int) -> Any:
    """One sample of a map-style data set.

    Raises:
        DataError: The data set fails to read it; the message names the row.
    """
    try:
        return dataset[number]
    except SimtrainError:
        raise
    except Exception as error:  # a user's own data set, or a reader of images, raises whatever it likes
        raise DataError(f"{sample_place(dataset, number)} cannot be read: {type(error).__name__}: {error}") from error


class NumberedSamples(Dataset[Any]):
    """A map-style data set that gives each sample with its number.

    Args:
        dataset: The data set; it is not changed.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[int, Any]:
        return number, read_sample(self.dataset, number)

    def __getitems__(self, numbers: Sequence[int]) -> list[tuple[int, Any]]:
        """A whole batch: read at once by a data set that can do that."""
        read = getattr(self.dataset, "__getitems__", None)
        if callable(read) and not isinstance(self.dataset, Subset):
            return list(zip(numbers, read(numbers), strict=True))
        return [self[number] for number in numbers]


class NumberedCollate:
    """Collates numbered samples; runs in the loader's workers.

    Args:
        collate_fn: Collates the samples.
        dataset: The data set that they are from, for messages.
    """

    def __init__(self, collate_fn: Callable[[Any], Any], dataset: Any) -> None:
        self.collate_fn, self.dataset = collate_fn, dataset

    def __call__(self, numbered: Sequence[tuple[int, Any]]) -> Any:
        """Collate one batch.

        Raises:
            DataError: An item cannot be collated; the message names its row.
        """
        numbers, samples = [number for number, _ in numbered], [sample for _, sample in numbered]
        try:
            batch = self.collate_fn(samples)
        except DataError as error:
            if not hasattr(error, "position"):
                raise
            # The encoder counts in its batch; the user counts in the data set.
            number = self._of_objects(numbers, samples)[error.position]
            raise DataError(f"{sample_place(self.dataset, number)} {error.reason}") from error  # type: ignore[attr-defined]
        if isinstance(batch, SampleBatch):
            owners = self._of_objects(numbers, samples)
            return batch._replace(numbers=owners, targets=self._with_items(batch.targets, owners))
        if isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[1], Mapping):
            return batch[0], self._with_items(batch[1], self._of_objects(numbers, samples))
        return batch

    def _with_items(self, targets: Mapping[str, Any], owners: Sequence[int]) -> dict[str, Any]:
        # A stable number for each item, by which a cross-batch memory knows it again.
        return {**targets, "items": item_numbers(owners, len(self.dataset))}

    def _of_objects(self, numbers: Sequence[int], samples: Sequence[Any]) -> list[int]:
        return [numbers[owner] for owner in layout_of(samples).owners(samples)]
