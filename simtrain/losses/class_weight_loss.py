"""The base class of losses that learn a vector for each group."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from simtrain.losses.batch_checks import check_group_batch
from simtrain.losses.candidate_loss import zero_loss
from simtrain.losses.class_logits import check_class_numbers, check_size
from simtrain.losses.group_loss import GroupLoss
from simtrain.losses.settings import check_count


class ClassWeightLoss(GroupLoss):
    """A group loss with a learnt vector (class weight, proxy or centre) for each group of the training data.

    Groups have to be numbered ``0 .. num_groups - 1``. The vectors are parameters of the loss: they follow its device,
    are in checkpoints, and have to be in the optimizer, to which :class:`simtrain.TrainableModel` sees. There is no
    memory form: a class weight stands for past batches already.

    In eval mode, embeddings whose group has no class weight are left out (classes that only the validation data has);
    where none is left, the loss is NaN: there is no such figure.

    A subclass implements :meth:`compare`. ``n_active`` counts the items with a loss other than zero.

    Args:
        embedding_size: Dimensions of an embedding.
        num_groups: Number of groups in the training data.
        n_centers: Vectors a group; None for a matrix of one each.

    Attributes:
        weights: Shape ``(num_groups, embedding_size)`` or ``(num_groups, n_centers, embedding_size)``; at first random,
            of length 1 on average.

    Raises:
        ConfigError: A size is not a whole number above zero.

    Example:
        >>> class Pull(ClassWeightLoss):
        ...     def compare(self, embeddings, groups):
        ...         return (embeddings - self.weights[groups]).square().sum(dim=1).mean()
        >>> loss = Pull(embedding_size=2, num_groups=3)
        >>> loss.weights.shape, loss.supports_memory
        (torch.Size([3, 2]), False)
    """

    def __init__(self, embedding_size: int, num_groups: int, n_centers: int | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        self.embedding_size = check_count(name, "embedding_size", embedding_size)
        self.num_groups = check_count(name, "num_groups", num_groups)
        shape = (num_groups, embedding_size) if n_centers is None else (num_groups, n_centers, embedding_size)
        self.weights = nn.Parameter(torch.randn(shape) * embedding_size**-0.5)

    def compare(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of embeddings against the class weights.

        Args:
            embeddings: Shape ``(batch, embedding_size)``, at least one row.
            groups: Shape ``(batch,)``, each from 0 to ``num_groups - 1``.

        Returns:
            A scalar, float32 or wider.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `compare`")

    def forward(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of a batch; see :meth:`GroupLoss.forward`.

        Raises:
            DataError: A shape or a dtype is wrong, or (in train mode, on the CPU) a group has no class
                weight.
        """
        name = type(self).__name__
        check_group_batch(embeddings, groups)
        check_size(embeddings, self.embedding_size, name)
        self.note(n_active=float(len(embeddings)))
        if len(embeddings) == 0:
            return zero_loss(embeddings) + zero_loss(self.weights.flatten(0, -2))
        if not self.training:
            return self._compare_known(embeddings, groups)
        check_class_numbers(name, groups, self.num_groups)
        return self.compare(embeddings, groups)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"embedding_size": self.embedding_size, "num_groups": self.num_groups}

    def _mean(self, terms: Tensor) -> Tensor:
        self.note(n_active=terms.count_nonzero())
        return terms.mean()

    def _compare_known(self, embeddings: Tensor, groups: Tensor) -> Tensor:
        known = (groups >= 0) & (groups < self.num_groups)
        self.note(n_active=known.sum())
        if not bool(known.any()):
            return zero_loss(embeddings) + torch.nan
        return self.compare(embeddings[known], groups[known])
