"""Classification of the training groups as a loss for embeddings."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Integer
from torch import Tensor

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.class_logits import class_similarities, cross_entropy_terms
from simtrain.losses.class_weight_loss import ClassWeightLoss
from simtrain.losses.distances import Distance
from simtrain.losses.settings import check_positive


@registry.losses.register_module()
class SoftmaxLoss(ClassWeightLoss):
    """Cross entropy over the similarities to class weights, divided by a temperature.

    Args:
        embedding_size: Dimensions of an embedding.
        num_groups: Number of groups in the training data, numbered from 0.
        temperature: Divisor of the similarities, above zero.
        normalize: Whether similarities are cosines, as in the paper, or dot products.
        label_smoothing: Share of the target that is spread evenly over all groups, from 0 to below 1.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Zhai, Wu, "Classification is a Strong Baseline for Deep Metric Learning", BMVC 2019,
        https://arxiv.org/abs/1811.12649; Szegedy et al., "Rethinking the Inception Architecture for Computer Vision",
        CVPR 2016 (label smoothing).

    Example:
        >>> import torch
        >>> loss = SoftmaxLoss(embedding_size=2, num_groups=2, temperature=1.0)
        >>> _ = loss.weights.data.copy_(torch.eye(2))
        >>> loss(torch.tensor([[5.0, 0.0]]), torch.tensor([0]))  # log(1 + 1 / e)
        tensor(0.3133, grad_fn=<MeanBackward0>)
    """

    def __init__(
        self,
        embedding_size: int,
        num_groups: int,
        temperature: float | int = 0.05,
        normalize: bool = True,
        label_smoothing: float | int = 0.0,
    ) -> None:
        super().__init__(embedding_size, num_groups)
        self.temperature = check_positive("SoftmaxLoss", "temperature", temperature)
        self.normalize = bool(normalize)
        self.label_smoothing = check_positive("SoftmaxLoss", "label_smoothing", label_smoothing, allow_zero=True)
        if self.label_smoothing >= 1:
            raise ConfigError(f"SoftmaxLoss: label_smoothing must be below 1, got {label_smoothing!r}")

    def compare(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of embeddings against the class weights; see :meth:`ClassWeightLoss.compare`."""
        distance = Distance.COSINE if self.normalize else Distance.DOT
        logits = class_similarities(embeddings, self.weights, distance) / self.temperature
        return self._mean(cross_entropy_terms(logits, groups, self.label_smoothing))

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {
            **super().get_config_dict(),
            "temperature": self.temperature,
            "normalize": self.normalize,
            "label_smoothing": self.label_smoothing,
        }
