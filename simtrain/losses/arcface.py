"""The additive angular margin loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.class_logits import class_similarities, cross_entropy_terms
from simtrain.losses.class_weight_loss import ClassWeightLoss
from simtrain.losses.margin_softmax import add_angle, dynamic_margins, put_at_class
from simtrain.losses.settings import check_count, check_positive


@registry.losses.register_module()
class ArcFaceLoss(ClassWeightLoss):
    """Softmax over the cosines to class weights, with a margin added to the angle to the own class.

    The logit of the own class is ``scale * cos(theta + margin)``, that of another ``scale * cos(theta)``. Where
    ``theta + margin`` would exceed pi, the own logit is ``scale * (cos(theta) - margin sin(margin))``, so that it goes
    on falling. Embeddings and class weights are normalised.

    Args:
        embedding_size: Dimensions of an embedding.
        num_groups: Number of groups in the training data, numbered from 0.
        scale: Factor of the cosines, above zero.
        margin: Angle in radians, from 0 to below pi / 2.
        sub_centers: Class weights a group, of which the nearest counts; several let noisy items gather at one of
            their own.
        group_counts: Items of each group. If given, margins differ by group: ``margin`` for the smallest one,
            ``min_margin`` for the largest; see :func:`~simtrain.losses.margin_softmax.dynamic_margins`.
        min_margin: Margin of the largest group, from 0 to ``margin``; only with ``group_counts``.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019,
        https://arxiv.org/abs/1801.07698; Deng et al., "Sub-center ArcFace", ECCV 2020; Ha et al., "Google Landmark
        Recognition 2020 Competition Third Place Solution", https://arxiv.org/abs/2010.05350 (dynamic margins).

    Example:
        >>> loss = ArcFaceLoss(embedding_size=2, num_groups=2, scale=1.0)
        >>> _ = loss.weights.data.copy_(torch.eye(2))
        >>> loss(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))  # log(1 + e**-cos(0.5))
        tensor(0.3477, grad_fn=<MeanBackward0>)
    """

    margins: Tensor

    def __init__(
        self,
        embedding_size: int,
        num_groups: int,
        scale: float | int = 64.0,
        margin: float | int = 0.5,
        sub_centers: int = 1,
        group_counts: Sequence[int] | None = None,
        min_margin: float | int = 0.05,
    ) -> None:
        self.sub_centers = check_count("ArcFaceLoss", "sub_centers", sub_centers)
        super().__init__(embedding_size, num_groups, n_centers=None if sub_centers == 1 else sub_centers)
        self.scale = check_positive("ArcFaceLoss", "scale", scale)
        self.margin = _angle("margin", margin)
        self.min_margin = _angle("min_margin", min_margin)
        self.group_counts = None if group_counts is None else [int(n) for n in group_counts]
        # Not in checkpoints: the settings give them.
        self.register_buffer("margins", torch.tensor(self._margins(), dtype=torch.float64), persistent=False)

    def compare(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of embeddings against the class weights; see :meth:`ClassWeightLoss.compare`."""
        cosines = class_similarities(embeddings, self.weights)
        own = cosines.gather(1, groups.long().unsqueeze(1)).squeeze(1)
        margins = (self.margins[groups.long()] if self.margins.ndim else self.margins).to(cosines.dtype)
        logits = put_at_class(cosines, groups, add_angle(own, margins)) * self.scale
        return self._mean(cross_entropy_terms(logits, groups))

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {
            **super().get_config_dict(),
            "scale": self.scale,
            "margin": self.margin,
            "sub_centers": self.sub_centers,
            "group_counts": self.group_counts,
            "min_margin": self.min_margin,
        }

    def _margins(self) -> float | list[float]:
        if self.group_counts is None:
            return self.margin
        if len(self.group_counts) != self.num_groups:
            raise ConfigError(
                f"ArcFaceLoss: group_counts should have a number for each of num_groups={self.num_groups} groups, "
                f"got {len(self.group_counts)}"
            )
        if self.min_margin > self.margin:
            raise ConfigError(f"ArcFaceLoss: min_margin should be at most margin={self.margin}, got {self.min_margin}")
        return dynamic_margins(self.group_counts, self.min_margin, self.margin)


def _angle(name: str, value: float | int) -> float:
    angle = check_positive("ArcFaceLoss", name, value, allow_zero=True)
    if angle >= math.pi / 2:
        raise ConfigError(
            f"ArcFaceLoss: {name} is an angle in radians, below pi / 2, got {value!r}; "
            f"{value} degrees are {math.radians(angle):.4f}"
        )
    return angle
