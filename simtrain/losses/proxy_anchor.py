"""The proxy anchor loss."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import softplus

from simtrain import registry
from simtrain.losses.class_logits import class_mask, class_similarities
from simtrain.losses.class_weight_loss import ClassWeightLoss
from simtrain.losses.settings import check_positive


@registry.losses.register_module()
class ProxyAnchorLoss(ClassWeightLoss):
    """Each proxy, as an anchor, pulls the items of its group and pushes all others, the hardest the most.

    With cosines ``s``: ``log(1 + sum of exp(-scale (s - margin)))`` over a proxy's own items, averaged over the proxies
    that have items in the batch, plus ``log(1 + sum of exp(scale (s + margin)))`` over the items of others, averaged
    over all proxies. ``n_active`` counts the items of which a proxy has a loss other than zero.

    Args:
        embedding_size: Dimensions of an embedding.
        num_groups: Number of groups in the training data, numbered from 0.
        scale: The paper's alpha, above zero.
        margin: The paper's delta, zero or above.

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020, https://arxiv.org/abs/2003.13911
        (equation 4). The paper trains proxies at 100 times the rate of the model: see ``loss_lr`` of
        :class:`simtrain.TrainableModel`.

    Example:
        >>> loss = ProxyAnchorLoss(embedding_size=2, num_groups=2, scale=1.0, margin=0.0)
        >>> _ = loss.weights.data.copy_(torch.eye(2))
        >>> loss(torch.tensor([[5.0, 0.0]]), torch.tensor([0]))  # log(1 + 1 / e) + log(1 + 1) / 2
        tensor(0.6598, grad_fn=<AddBackward0>)
    """

    def __init__(
        self, embedding_size: int, num_groups: int, scale: float | int = 32.0, margin: float | int = 0.1
    ) -> None:
        super().__init__(embedding_size, num_groups)
        self.scale = check_positive("ProxyAnchorLoss", "scale", scale)
        self.margin = check_positive("ProxyAnchorLoss", "margin", margin, allow_zero=True)

    def compare(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of embeddings against the proxies; see :meth:`ClassWeightLoss.compare`."""
        cosines, own = class_similarities(embeddings, self.weights), class_mask(groups, self.num_groups)
        pull = _log_one_plus_sum(-self.scale * (cosines - self.margin), own)
        push = _log_one_plus_sum(self.scale * (cosines + self.margin), ~own)
        moved = torch.where(own, pull.detach(), push.detach()) != 0
        self.note(n_active=moved.any(dim=1).sum())
        return pull.sum() / own.any(dim=0).sum() + push.mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {**super().get_config_dict(), "scale": self.scale, "margin": self.margin}


def _log_one_plus_sum(exponents: Tensor, mask: Tensor) -> Tensor:
    # The lowest finite number, not -inf: a column without any item would have NaN as its gradient.
    masked = exponents.masked_fill(~mask, torch.finfo(exponents.dtype).min)
    return softplus(masked.logsumexp(dim=0), threshold=50)
