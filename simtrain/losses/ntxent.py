"""The normalized temperature-scaled cross entropy loss."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from simtrain import registry
from simtrain.losses.distances import similarity_matrix
from simtrain.losses.log_sums import masked_logsumexp, masked_mean
from simtrain.losses.row_loss import RowLoss
from simtrain.losses.row_terms import Part, Positives
from simtrain.losses.softmax_terms import ntxent_rows
from simtrain.losses.temperature import (
    GivenTemperature,
    checked_temperature,
    moving,
    temperature_config,
    temperature_now,
)


def ntxent_terms(
    logits: Float[Tensor, "anchors candidates"], negative: Bool[Tensor, "anchors candidates"]
) -> Float[Tensor, "anchors candidates"]:
    """Cross entropy of each candidate, as a positive, against the anchor's negatives: equation 1.

    Args:
        logits: Similarities divided by the temperature, shape ``(anchors, candidates)``.
        negative: Shape ``(anchors, candidates)``.

    Returns:
        Shape ``(anchors, candidates)``; means something for positives only.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 1.0, 1.0]])
        >>> ntxent_terms(logits, torch.tensor([[False, True, True]]))[0, 0]  # log 3
        tensor(1.0986)
    """
    return softplus(masked_logsumexp(logits, negative).unsqueeze(1) - logits)


@registry.losses.register_module()
class NTXentLoss(RowLoss):
    """Each positive is to be found among the anchor's negatives: ``-log(e^s_ap / (e^s_ap + sum e^s_an))``.

    On cosine similarities divided by the temperature; mean over all (anchor, positive) pairs. With two items a group
    (two views of each) it is SimCLR's. Of an anchor's several positives, none is another's negative, which is what
    sets it apart from :class:`SupConLoss`. ``n_active`` counts the pairs with a loss other than zero.

    Args:
        temperature: Divisor of the similarities, above zero; or a learnt or scheduled one, see
            :class:`LearntTemperature` and :class:`ScheduledTemperature`.

    Raises:
        ConfigError: The temperature is none of these.

    Reference:
        Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
        https://arxiv.org/abs/2002.05709 (equation 1)

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
        >>> NTXentLoss(temperature=0.5)(embeddings, torch.tensor([0, 0, 1, 1]))  # log(1 + 2 / e**2)
        tensor(0.2395)
    """

    def __init__(self, temperature: GivenTemperature = 0.1) -> None:
        super().__init__()
        self.temperature = checked_temperature("NTXentLoss", temperature)

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
        terms = ntxent_terms(similarity_matrix(anchors, candidates) / temperature, negative)
        n_active = ((terms.detach() != 0) & positive).sum()
        self.note(n_active=n_active, **moving(self.temperature, temperature))
        return masked_mean(terms, positive)

    @property
    def similarity_scale(self) -> Tensor | float:
        """One over the temperature."""
        return 1 / temperature_now(self.temperature)

    def row_terms(self, negatives: Float[Tensor, "anchors candidates"], positives: Positives) -> tuple[Part, ...]:
        """Loss of some anchors against a memory; see :meth:`RowLoss.row_terms`."""
        return (ntxent_rows(negatives, positives),)
