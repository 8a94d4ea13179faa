"""The plain shuffle."""

from __future__ import annotations

from typing import Any

import numpy as np

from simtrain.data.samplers.dealing import Remainder
from simtrain.data.samplers.similarity_sampler import SimilaritySampler
from simtrain.errors import DataError
from simtrain.registry import samplers


@samplers.register_module()
class ShuffleSampler(SimilaritySampler):
    """Every sample once an epoch, in another random order each time.

    The order does not depend on the number of processes: an epoch may be resumed with another one. What
    ``shuffle=True`` of the similarity loaders uses.

    Args:
        dataset: The data set, for its length.
        seed: Seed of the order; default: drawn from torch's global generator.
        batch_size: Batch size of the loader. Without it, several processes can share a data set evenly only if its
            length is a multiple of their number.
        remainder: What to do with the last batch where several processes cannot share it evenly: ``"share"`` gives
            some processes one sample more, and refuses where others would be left without a batch; ``"repeat"``
            repeats up to one sample fewer than there are processes, ``"drop"`` leaves out as many.

    Raises:
        DataError: The data set is empty or has no length; or, when iterated, the processes would not get equally
            many batches.

    Example:
        >>> sorted(ShuffleSampler(["a", "b", "c"], seed=1))
        [0, 1, 2]
    """

    def __init__(
        self,
        dataset: Any,
        seed: int | None = None,
        *,
        batch_size: int | None = None,
        remainder: Remainder = "share",
    ) -> None:
        if not hasattr(dataset, "__len__"):
            raise DataError(f"a stream cannot be shuffled by a sampler: {type(dataset).__name__} has no length")
        super().__init__(len(dataset), batch_size, seed, remainder)

    def _order(self, random: np.random.Generator, processes: int) -> np.ndarray:
        return random.permutation(self.size)
