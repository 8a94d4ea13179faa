"""The weighted sum of losses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from simtrain import registry
from simtrain.errors import ConfigError, nearest
from simtrain.losses.nested_losses import GivenLoss, describe_loss, nested_loss
from simtrain.losses.settings import check_positive
from simtrain.losses.similarity_loss import SimilarityLoss


@registry.losses.register_module()
class CombinedLoss(SimilarityLoss):
    """A weighted sum of losses.

    It takes whatever targets its parts take: losses over groups and over pairs may stand side by side where batches
    have both, as batches of triplets do. With a cross-batch memory, the parts that have a memory form are compared with
    the memory. The log has each part's loss, before its weight, as ``loss_<name>``, and what a part notes as
    ``<name>_<figure>``.

    Args:
        losses: Name → loss, or its config.
        weights: Name → factor, above zero. Default: 1 for each that is not named.

    Raises:
        ConfigError: There is no loss, a name is no word, a weight belongs to no loss, or a config is wrong.

    Example:
        >>> import torch
        >>> from simtrain.losses import SupConLoss, TripletLoss
        >>> loss = CombinedLoss({"triplet": TripletLoss(), "supcon": SupConLoss()}, weights={"supcon": 0.5})
        >>> value = loss(torch.randn(4, 8), torch.tensor([0, 0, 1, 1]))
        >>> sorted(loss.figures())
        ['loss_supcon', 'loss_triplet', 'supcon_n_active', 'triplet_n_active']
    """

    def __init__(self, losses: Mapping[str, GivenLoss], weights: Mapping[str, float | int] | None = None) -> None:
        super().__init__()
        if not isinstance(losses, Mapping) or not losses:
            raise ConfigError(f"CombinedLoss: losses must be one or more losses by name, got {losses!r}")
        for name in losses:
            # The names become parts of modules' and figures' names.
            if not isinstance(name, str) or not re.fullmatch(r"\w+", name):
                raise ConfigError(f"CombinedLoss: a loss's name must be letters, digits and underscores, got {name!r}")
        given = dict(weights or {})
        for name in given:
            if name not in losses:
                raise ConfigError(f"CombinedLoss: no loss has the name of the weight {name!r}; {nearest(name, losses)}")
        # Prefixed, so that a part may have the name of a method of ModuleDict ("values").
        self.parts = nn.ModuleDict(
            {f"loss_{name}": nested_loss(one, f"CombinedLoss: {name}") for name, one in losses.items()}
        )
        self.weights = {
            name: check_positive("CombinedLoss", f"the weight of {name!r}", given.get(name, 1.0)) for name in losses
        }

    @property
    def target_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Which targets of a batch the parts take, each once, in the order of their first mention."""
        return tuple(dict.fromkeys(name for _, part in self._named() for name in part.target_names))

    @property
    def supports_memory(self) -> bool:
        """Whether one of the parts works with a cross-batch memory."""
        return any(part.supports_memory for _, part in self._named())

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"losses": {name: describe_loss(part) for name, part in self._named()}, "weights": dict(self.weights)}

    def extra_repr(self) -> str:
        """The weights; the losses are shown as parts."""
        return f"weights={self.weights}"

    def forward(self, embeddings: Float[Tensor, "rows dim"], *targets: Tensor) -> Float[Tensor, ""]:
        """Loss of a batch.

        Args:
            embeddings: Shape ``(rows, dim)``.
            *targets: The tensors of :attr:`target_names`.
        """
        given = dict(zip(self.target_names, targets, strict=True))
        return self._sum(
            {name: part(embeddings, *(given[target] for target in part.target_names)) for name, part in self._named()}
        )

    def memory_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        memory_embeddings: Float[Tensor, "memory dim"],
        memory_groups: Integer[Tensor, " memory"],
        own: Bool[Tensor, "batch memory"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of a batch against a memory, of the parts that have one; see :meth:`SimilarityLoss.memory_loss`."""
        able = [(name, part) for name, part in self._named() if part.supports_memory]
        if not able:
            return super().memory_loss(embeddings, groups, memory_embeddings, memory_groups, own)
        given = (embeddings, groups, memory_embeddings, memory_groups, own)
        return self._sum({name: part.memory_loss(*given) for name, part in able})

    def _sum(self, losses: dict[str, Tensor]) -> Tensor:
        parts = dict(self._named())
        figures: dict[str, Tensor | float] = {f"loss_{name}": loss for name, loss in losses.items()}
        for name in losses:
            figures |= {f"{name}_{figure}": value for figure, value in parts[name].figures().items()}
        self.note(**figures)
        terms = [loss * self.weights[name] for name, loss in losses.items()]
        return sum(terms[1:], start=terms[0])

    def _named(self) -> list[tuple[str, SimilarityLoss]]:
        return [(name.removeprefix("loss_"), part) for name, part in self.parts.items()]  # type: ignore[misc]
