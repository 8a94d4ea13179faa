"""The large margin cosine loss."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Integer
from torch import Tensor

from simtrain import registry
from simtrain.losses.class_logits import class_similarities, cross_entropy_terms
from simtrain.losses.class_weight_loss import ClassWeightLoss
from simtrain.losses.margin_softmax import put_at_class
from simtrain.losses.settings import check_positive


@registry.losses.register_module()
class CosFaceLoss(ClassWeightLoss):
    """Softmax over the cosines to class weights, with a margin taken off the cosine to the own class.

    The logit of the own class is ``scale * (cos(theta) - margin)``, that of another ``scale * cos(theta)``. Embeddings
    and class weights are normalised.

    Args:
        embedding_size: Dimensions of an embedding.
        num_groups: Number of groups in the training data, numbered from 0.
        scale: Factor of the cosines, above zero.
        margin: What is taken off, zero or above.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018,
        https://arxiv.org/abs/1801.09414 (equation 4).

    Example:
        >>> import torch
        >>> loss = CosFaceLoss(embedding_size=2, num_groups=2)
        >>> _ = loss.weights.data.copy_(torch.eye(2))
        >>> x = torch.tensor([[5.0, 0.0]])
        >>> loss(x, torch.tensor([0])).round(decimals=4).item(), loss(x, torch.tensor([1])).round(decimals=4).item()
        (0.0, 86.4000015258789)
    """

    def __init__(
        self, embedding_size: int, num_groups: int, scale: float | int = 64.0, margin: float | int = 0.35
    ) -> None:
        super().__init__(embedding_size, num_groups)
        self.scale = check_positive("CosFaceLoss", "scale", scale)
        self.margin = check_positive("CosFaceLoss", "margin", margin, allow_zero=True)

    def compare(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of embeddings against the class weights; see :meth:`ClassWeightLoss.compare`."""
        cosines = class_similarities(embeddings, self.weights)
        own = cosines.gather(1, groups.long().unsqueeze(1)).squeeze(1)
        logits = put_at_class(cosines, groups, own - self.margin) * self.scale
        return self._mean(cross_entropy_terms(logits, groups))

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {**super().get_config_dict(), "scale": self.scale, "margin": self.margin}
