"""The proxy NCA losses."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.class_logits import class_mask, class_similarities
from simtrain.losses.class_weight_loss import ClassWeightLoss
from simtrain.losses.settings import check_positive


@registry.losses.register_module()
class ProxyNCALoss(ClassWeightLoss):
    """Each item is near its group's proxy, far from the other groups'.

    With squared euclidean distances ``d`` between unit vectors: ``d_own / temperature`` plus the logarithm of the sum
    of ``exp(-d / temperature)`` over the other groups' proxies, averaged over the items. With ``own_in_sum`` the sum is
    over all proxies, as in ProxyNCA++, whose temperature is 1/9.

    Args:
        embedding_size: Dimensions of an embedding.
        num_groups: Number of groups in the training data, numbered from 0; two or more unless ``own_in_sum``.
        temperature: Divisor of the distances, above zero.
        own_in_sum: Whether the own proxy is in the sum, too, which makes it a softmax (ProxyNCA++).

    Raises:
        ConfigError: A setting is not one of the above.

    Reference:
        Movshovitz-Attias et al., "No Fuss Distance Metric Learning using Proxies", ICCV 2017,
        https://arxiv.org/abs/1703.07464; Teh et al., "ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood
        Component Analysis", ECCV 2020, https://arxiv.org/abs/2004.01113

    Example:
        >>> loss = ProxyNCALoss(embedding_size=2, num_groups=2)
        >>> _ = loss.weights.data.copy_(torch.eye(2))
        >>> loss(torch.tensor([[5.0, 0.0]]), torch.tensor([0]))  # 0 - 2
        tensor(-2., grad_fn=<MeanBackward0>)
    """

    def __init__(
        self,
        embedding_size: int,
        num_groups: int,
        temperature: float | int = 1.0,
        own_in_sum: bool = False,
    ) -> None:
        super().__init__(embedding_size, num_groups)
        self.temperature = check_positive("ProxyNCALoss", "temperature", temperature)
        self.own_in_sum = bool(own_in_sum)
        if num_groups < 2 and not own_in_sum:
            raise ConfigError(
                f"ProxyNCALoss compares with the proxies of other groups: num_groups must be 2 or more, "
                f"got {num_groups}"
            )

    def compare(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of embeddings against the proxies; see :meth:`ClassWeightLoss.compare`."""
        # Between unit vectors d = 2 - 2 cos.
        logits = (2 * class_similarities(embeddings, self.weights) - 2) / self.temperature
        own = logits.gather(1, groups.long().unsqueeze(1)).squeeze(1)
        if not self.own_in_sum:
            logits = logits.masked_fill(class_mask(groups, self.num_groups), -torch.inf)
        return self._mean(logits.logsumexp(dim=1) - own)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {**super().get_config_dict(), "temperature": self.temperature, "own_in_sum": self.own_in_sum}
