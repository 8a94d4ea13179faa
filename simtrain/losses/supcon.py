"""The supervised contrastive loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from simtrain import registry
from simtrain.losses.distances import similarity_matrix
from simtrain.losses.row_loss import RowLoss
from simtrain.losses.row_terms import Part, Positives
from simtrain.losses.softmax_terms import supcon_rows
from simtrain.losses.temperature import (
    GivenTemperature,
    checked_temperature,
    moving,
    temperature_config,
    temperature_now,
)


def supervised_contrastive_terms(
    anchors: Float[Tensor, "anchors dim"],
    candidates: Float[Tensor, "candidates dim"],
    positive: Bool[Tensor, "anchors candidates"],
    negative: Bool[Tensor, "anchors candidates"],
    *,
    temperature: float | Tensor = 0.1,
) -> Float[Tensor, " anchors"]:
    """Cross entropy of each positive against all candidates, averaged per anchor.

    Args:
        anchors: Shape ``(anchors, dim)``.
        candidates: Shape ``(candidates, dim)``.
        positive: Shape ``(anchors, candidates)``.
        negative: Shape ``(anchors, candidates)``. A candidate that is neither is left out of the sum over all.
        temperature: Divisor of the cosine similarities.

    Returns:
        Shape ``(anchors,)``; zero for an anchor without positives.

    Example:
        >>> x, same = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]), torch.tensor([[False, True, False]])
        >>> supervised_contrastive_terms(x[:1], x, same, torch.tensor([[False, False, True]]))  # log 2
        tensor([0.6931])
    """
    logits = similarity_matrix(anchors, candidates) / temperature
    n_positives = positive.sum(dim=1)
    mean_positive = logits.masked_fill(~positive, 0).sum(dim=1) / n_positives.clamp(min=1)
    # The lowest finite number, not -inf: a row without any candidate would have NaN as its gradient.
    others = ~(positive | negative)
    log_total = logits.masked_fill_(others, torch.finfo(logits.dtype).min).logsumexp(dim=1)
    return (log_total - mean_positive).masked_fill(n_positives == 0, 0)


def supervised_contrastive_loss(
    anchors: Float[Tensor, "anchors dim"],
    candidates: Float[Tensor, "candidates dim"],
    positive: Bool[Tensor, "anchors candidates"],
    negative: Bool[Tensor, "anchors candidates"],
    *,
    temperature: float | Tensor = 0.1,
) -> Float[Tensor, ""]:
    """Mean of :func:`supervised_contrastive_terms` over the anchors with positives; a scalar.

    Example:
        >>> x, same = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]), torch.tensor([[False, True, False]])
        >>> supervised_contrastive_loss(x[:1], x, same, torch.tensor([[False, False, True]]))  # log 2
        tensor(0.6931)
    """
    rows = supervised_contrastive_terms(anchors, candidates, positive, negative, temperature=temperature)
    return rows.sum() / positive.any(dim=1).sum().clamp(min=1)


@registry.losses.register_module()
class SupConLoss(RowLoss):
    """Supervised contrastive loss on cosine similarities, in its L_out form: the mean is outside of the logarithm.

    Anchors without a positive are left out; a batch of such anchors has a loss of zero. ``n_active`` counts
    the anchors with a loss other than zero.

    Args:
        temperature: Divisor of the similarities, above zero; or a learnt or scheduled one, see
            :class:`LearntTemperature` and :class:`ScheduledTemperature`.

    Raises:
        ConfigError: The temperature is none of these.

    Reference:
        Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, https://arxiv.org/abs/2004.11362 (equation 2).

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> SupConLoss(temperature=0.5)(embeddings, torch.tensor([0, 0, 1, 1]))  # log(1 + 2 / e**2)
        tensor(0.2395)
    """

    def __init__(self, temperature: GivenTemperature = 0.1) -> None:
        super().__init__()
        self.temperature = checked_temperature("SupConLoss", temperature)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"temperature": temperature_config(self.temperature)}

    def compare(
        self,
        anchors: Float[Tensor, "anchors dim"],
        candidates: Float[Tensor, "candidates dim"],
        positive: Bool[Tensor, "anchors candidates"],
        negative: Bool[Tensor, "anchors candidates"],
    ) -> Float[Tensor, ""]:
        """Loss of anchors against candidates; see :meth:`CandidateLoss.compare`."""
        temperature = temperature_now(self.temperature)
        rows = supervised_contrastive_terms(anchors, candidates, positive, negative, temperature=temperature)
        self.note(n_active=rows.count_nonzero(), **moving(self.temperature, temperature))
        return rows.sum() / positive.any(dim=1).sum().clamp(min=1)

    @property
    def similarity_scale(self) -> Tensor | float:
        """One over the temperature."""
        return 1 / temperature_now(self.temperature)

    def row_terms(self, negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> tuple[Part, ...]:
        """Loss of some anchors against a memory; see :meth:`RowLoss.row_terms`."""
        return (supcon_rows(negatives, positives),)
