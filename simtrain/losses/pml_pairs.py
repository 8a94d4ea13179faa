"""The losses of pytorch-metric-learning that compare two views of each item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.batch_checks import check_pair_batch
from simtrain.losses.candidate_loss import zero_loss
from simtrain.losses.pairwise_loss import PairwiseLoss
from simtrain.losses.pml import (
    TWO_VIEWS,
    PytorchMetricLearningWrapper,
    as_config,
    check_scalar,
    part_of,
    scalar,
    widened,
)
from simtrain.losses.pml_active import counted
from simtrain.losses.pml_names import PREFIX, pml_loss_names


@registry.losses.register_module()
class PytorchMetricLearningPairs(PairwiseLoss):
    """``SelfSupervisedLoss`` or ``VICRegLoss`` of pytorch-metric-learning over the matching pairs of a batch.

    In configs, ``{type: pml.VICRegLoss}`` is this class. Pairs with a label of 0 are left out.

    Args:
        loss: The loss, or its config.

    Raises:
        ConfigError: A name or a setting is unknown or wrong, or the loss takes groups.

    Example:
        >>> loss = PytorchMetricLearningPairs(
        ...     {"type": "pml.SelfSupervisedLoss", "loss": {"type": "pml.NTXentLoss", "temperature": 1.0}}
        ... )
        >>> x, pairs = torch.eye(2).repeat(2, 1), torch.tensor([[0, 2], [1, 3]])
        >>> loss(x, pairs, torch.ones(2), torch.zeros(4, dtype=torch.long))  # log(1 + 2 / e)
        tensor(0.5514)
    """

    builds_own_parts = True

    def __init__(self, loss: nn.Module | Mapping[str, Any]) -> None:
        super().__init__()
        self._config = {"loss": loss}
        self.loss = part_of(loss, "losses")
        if type(self.loss).__name__ not in TWO_VIEWS:
            raise ConfigError(
                f"{type(self.loss).__name__} takes groups; use PytorchMetricLearningWrapper, or one of "
                f"{sorted(TWO_VIEWS)}"
            )
        check_scalar(self.loss)

    def forward(
        self,
        embeddings: Float[Tensor, "rows dim"],
        pairs: Int64[Tensor, "n_pairs 2"],
        labels: Float[Tensor, " n_pairs"],
        subgroups: Integer[Tensor, " rows"],
    ) -> Float[Tensor, ""]:
        """Loss of a batch; see :meth:`PairwiseLoss.forward`."""
        check_pair_batch(embeddings, pairs, labels, subgroups)
        matching = pairs[labels > 0]
        if len(matching) < 2:
            self.note(n_active=0)
            return zero_loss(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            wide = widened(embeddings)
            with counted(self.loss, len(matching)) as active:
                value = scalar(self.loss(wide[matching[:, 0]], ref_emb=wide[matching[:, 1]]))
            self.note(n_active=active.number(value))
            return value

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values.

        Raises:
            ConfigError: The loss was passed as an object, which does not know its settings.
        """
        return as_config(self._config)

    def extra_repr(self) -> str:
        """The loss is shown by itself."""
        return ""


def pml_factory(name: str) -> Any:
    """What builds the loss of a registry name such as ``"pml.CircleLoss"``.

    Example:
        >>> build = pml_factory("pml.CircleLoss")
        >>> build(m=0.4, miner={"type": "pml.MultiSimilarityMiner", "epsilon": 0.2}).miner.epsilon
        0.2
    """

    def build(*, miner: Mapping[str, Any] | None = None, **words: Any) -> PairwiseLoss | PytorchMetricLearningWrapper:
        config = {"type": name, **words}
        if name.removeprefix(PREFIX) not in TWO_VIEWS:
            return PytorchMetricLearningWrapper(config, miner)
        if miner is not None:
            raise ConfigError(f"{name} compares two views of each item, without a miner; leave miner out")
        return PytorchMetricLearningPairs(config)

    build.builds_own_parts = True  # type: ignore[attr-defined]
    return build


registry.losses.register_family(PREFIX, pml_loss_names, pml_factory)
