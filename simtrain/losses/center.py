"""The center loss."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Integer
from torch import Tensor

from simtrain import registry
from simtrain.losses.class_weight_loss import ClassWeightLoss
from simtrain.losses.distances import Distance, pair_distances
from simtrain.losses.settings import check_positive


@registry.losses.register_module()
class CenterLoss(ClassWeightLoss):
    """Pulls each item towards its group's centre: ``lambda_c / 2`` times the mean squared euclidean distance.

    Alone, it is least where all embeddings collapse into one point; the paper adds it to a softmax loss. Centres are
    parameters that follow the gradient, by the optimizer, and not by the paper's running average: so they are the same
    over any number of processes, and have a learning rate (``loss_lr`` of :class:`simtrain.TrainableModel`; the paper's
    alpha).

    Args:
        embedding_size: Dimensions of an embedding.
        num_groups: Number of groups in the training data, numbered from 0.
        lambda_c: Factor of the loss, above zero.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016 (equation 2).

    Example:
        >>> import torch
        >>> loss = CenterLoss(embedding_size=2, num_groups=2)
        >>> _ = loss.weights.data.copy_(torch.eye(2))
        >>> loss(torch.tensor([[5.0, 0.0]]), torch.tensor([0]))  # 0.5 / 2 * 4**2
        tensor(4., grad_fn=<MulBackward0>)
    """

    def __init__(self, embedding_size: int, num_groups: int, lambda_c: float | int = 0.5) -> None:
        super().__init__(embedding_size, num_groups)
        self.lambda_c = check_positive("CenterLoss", "lambda_c", lambda_c)

    def compare(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of embeddings against their centres; see :meth:`ClassWeightLoss.compare`."""
        centers = self.weights.index_select(0, groups.long())
        return self._mean(pair_distances(embeddings, centers, Distance.SQUARED_EUCLIDEAN)) * (self.lambda_c / 2)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {**super().get_config_dict(), "lambda_c": self.lambda_c}
