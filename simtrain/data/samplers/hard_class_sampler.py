"""Batches of groups that are hard to tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from simtrain.data.samplers.dealing import World, current_world
from simtrain.data.samplers.group_chunks import by_group, nth_of_each
from simtrain.data.samplers.pk_sampler import PKSampler
from simtrain.data.samplers.similarity_sampler import Place, first_process
from simtrain.errors import CheckpointError, ConfigError, DataError
from simtrain.registry import samplers

# Similarities are computed for so many groups at once: a matrix product, whose result stays small.
BLOCK = 32


@samplers.register_module()
class HardClassSampler(PKSampler):
    """Batches of ``per_group`` items each of groups that are near each other.

    A batch is a random group and those nearest to it, by the cosine of their mean embeddings, that still have items
    for this epoch; so an epoch takes as many items of each group as that of :class:`PKSampler`.

    A :class:`simtrain.TrainableModel` that is trained with it embeds the training items at the start of each epoch,
    through its cache where it has one, and calls :meth:`update`; with any other model you call it. Until then it is a
    :class:`PKSampler`.

    Args:
        labels: One label an item, or a data set that has them.
        batch_size: Items in a batch of one process, the same as the loader's; a multiple of ``per_group``.
        per_group: Items of a group in a batch.
        seed: Seed of the order; default: drawn from torch's global generator.
        small_groups: ``"replace"`` or ``"skip"``, see :class:`PKSampler`.
        embed_per_group: How many items of each group are embedded for an epoch, drawn anew each time. Default: all;
            embedding them takes as long as an epoch's forward passes do, unless the encoders are cached.
        by_training: Whether training calls :meth:`update`; with False only you do.

    Raises:
        ConfigError: An argument is out of its range.
        DataError: There are too few groups for a batch, one group only, or no group has two items.

    Example:
        >>> labels = [0, 0, 1, 1, 2, 2, 3, 3]
        >>> sampler = HardClassSampler(labels, batch_size=4, per_group=2, seed=0)
        >>> directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])
        >>> sampler.update(directions[torch.tensor(labels)])
        >>> sorted(sorted({labels[i] for i in batch}) for batch in torch.tensor(list(sampler)).split(4))
        [[0, 2], [1, 3]]
    """

    def __init__(
        self,
        labels: Any,
        *,
        batch_size: int,
        per_group: int,
        seed: int | None = None,
        small_groups: Literal["replace", "skip"] = "replace",
        embed_per_group: int | None = None,
        by_training: bool = True,
    ) -> None:
        if embed_per_group is not None and embed_per_group < 1:
            raise ConfigError(f"embed_per_group should be a positive integer, or None for all, got {embed_per_group!r}")
        super().__init__(labels, batch_size=batch_size, per_group=per_group, seed=seed, small_groups=small_groups)
        self.embed_per_group, self.by_training = embed_per_group, by_training
        #: Means for the next epoch, and those that the present one was made with.
        self._means: Tensor | None = None
        self._means_in_use: Tensor | None = None
        self._means_agreed = True

    def items_to_embed(self) -> np.ndarray:
        """Numbers of the items whose embeddings the next epoch wants, ascending, int64; the same on all processes.

        Empty where the next iteration goes on with an epoch that has begun: that keeps the embeddings that it had.
        """
        place = self.upcoming()
        if place.position + place.offset > 0:
            return np.empty(0, dtype=np.int64)
        if self.embed_per_group is None:
            return np.arange(self.size)
        self._agree_on_seed(current_world())
        # Another stream than that of the order.
        random = np.random.default_rng([self.seed, place.epoch, self.embed_per_group])
        chosen = nth_of_each(self._groups.counts) < self.embed_per_group
        return np.sort(by_group(self._groups.numbers, random)[chosen])

    def labels_of(self, items: np.ndarray) -> list[Any]:
        """Labels of items, as :meth:`update` takes them."""
        return [self._groups.names[number] for number in self._groups.numbers[items].tolist()]

    @torch.no_grad()
    def update(self, embeddings: Float[Tensor, "items dim"], labels: Any = None) -> None:
        """Take the current embeddings of items; they count from the next iteration on.

        A group without embeddings is near to none. Several processes have to call this together; what the first of
        them has is used by all.

        Args:
            embeddings: One row an item.
            labels: The items' labels. Default: those of the data set, and embeddings of all its items in order.

        Raises:
            DataError: There are more or fewer rows than labels, a label is unknown, or a value is not finite.
        """
        numbers = self._groups.numbers if labels is None else self._groups.find(labels)
        if len(embeddings) != len(numbers) or embeddings.ndim != 2:
            raise DataError(f"{len(numbers)} labels need as many embeddings, got shape {tuple(embeddings.shape)}")
        if not embeddings.isfinite().all():
            raise DataError("an embedding is not finite (nan or inf): groups cannot be compared by it")
        rows = normalize(embeddings.detach().float().cpu(), dim=1)
        sums = torch.zeros(len(self._groups), rows.shape[1]).index_add_(0, torch.from_numpy(numbers), rows)
        self._means, self._means_agreed = normalize(sums, dim=1), False

    def state_at(self, place: Place, grid: tuple[int, int] | None = None) -> dict[str, Any]:
        """State for another place than the present one; holds the means, so that an epoch can be continued."""
        means = {"means": self._means, "means_in_use": self._means_in_use}
        return {**super().state_at(place, grid), **means}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next iteration begin where another one was, with the embeddings that it had."""
        for name in ("means", "means_in_use"):
            means = state_dict.get(name)
            if name not in state_dict or (means is not None and len(means) != len(self._groups)):
                raise CheckpointError(
                    f"the state of a {type(self).__name__} lacks {name} of {len(self._groups)} groups"
                )
        super().load_state_dict(state_dict)
        self._means, self._means_in_use = state_dict["means"], state_dict["means_in_use"]
        self._means_agreed = True

    def _prepare(self, world: World, resumed: bool) -> None:
        super()._prepare(world, resumed)
        if world.size > 1 and not self._means_agreed:
            # Rounding differs from process to process, and with it the order of neighbours.
            self._means = first_process(self._means)
        self._means_agreed = True
        if not resumed:
            self._means_in_use = self._means

    def _meet(self, quota: np.ndarray, n_batches: int, random: np.random.Generator) -> np.ndarray:
        if self._means_in_use is None:
            return super()._meet(quota, n_batches, random)
        batches = np.stack(list(near_groups(quota, n_batches, self._means_in_use.numpy(), random)))
        return random.permuted(random.permutation(batches), axis=1)


def near_groups(
    quota: np.ndarray, n_batches: int, means: np.ndarray, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Groups of each batch: a random one, and those nearest to it that are left.

    Args:
        quota: In how many batches each group is, ``n_batches`` at most; its sum is a multiple of ``n_batches``.
        n_batches: Number of batches.
        means: Direction of each group, ``(groups, dim)``, of length 1.
        random: Source of randomness.

    Yields:
        Different groups, ``(groups per batch,)``.
    """
    left, size = quota.copy(), int(quota.sum()) // n_batches
    anchors = _anchors(quota, left, means, random)
    for batches_left in range(n_batches, 0, -1):
        # A group that has to be in every batch from now on; there are `size` of them at most.
        urgent = np.flatnonzero(left == batches_left)
        chosen = urgent if len(urgent) == size else _nearest(*next(anchors), left, urgent, size)
        left[chosen] -= 1
        yield chosen


def _nearest(anchor: int, similarity: np.ndarray, left: np.ndarray, urgent: np.ndarray, size: int) -> np.ndarray:
    score = np.where(left > 0, similarity, -np.inf)
    score[urgent] = score[anchor] = np.inf
    return np.argpartition(-score, size - 1)[:size]


def _anchors(
    quota: np.ndarray, left: np.ndarray, means: np.ndarray, random: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    """Groups in random order, each as often as it may be an anchor and while some of it is left, with similarities."""
    waiting = random.permutation(np.repeat(np.arange(len(quota)), quota))
    while len(waiting):
        waiting = waiting[left[waiting] > 0]
        block, waiting = waiting[:BLOCK], waiting[BLOCK:]
        for anchor, similarity in zip(block.tolist(), means[block] @ means.T, strict=True):
            if left[anchor] > 0:
                yield anchor, similarity
