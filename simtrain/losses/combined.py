"""The weighted sum of losses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor, nn

from simtrain import registry
from simtrain.errors import ConfigError, nearest
from simtrain.losses.memory_rows import MemoryRows
from simtrain.losses.nested_losses import GivenLoss, check_part_memory, describe_loss, nested_loss, total_active
from simtrain.losses.settings import check_positive
from simtrain.losses.similarity_loss import SimilarityLoss


@registry.losses.register_module()
class CombinedLoss(SimilarityLoss):
    """A weighted sum of losses.

    It takes whatever targets its parts take: losses over groups and over pairs may stand side by side where batches
    have both, as batches of triplets do. With a cross-batch memory, all parts are compared with the memory, or those
    that ``memory`` names. The log has each part's loss, before its weight, as ``loss_<name>``, what a part notes as
    ``<name>_<figure>``, and the sum of their ``n_active``.

    Args:
        losses: Name → loss, or its config.
        weights: Name → factor, above zero. Default: 1 for each that is not named.
        memory: Names of the losses that are compared with a cross-batch memory, too: all over groups, or all over
            pairs. Default: every one; one without a memory form is then refused beside ``xbm``.

    Raises:
        ConfigError: There is no loss, a name is no word, a weight or ``memory`` names none, or a config is wrong.

    Example:
        >>> import torch
        >>> from simtrain.losses import SupConLoss, TripletLoss
        >>> loss = CombinedLoss({"triplet": TripletLoss(), "supcon": SupConLoss()}, weights={"supcon": 0.5})
        >>> value = loss(torch.randn(4, 8), torch.tensor([0, 0, 1, 1]))
        >>> sorted(loss.figures())
        ['loss_supcon', 'loss_triplet', 'n_active', 'supcon_n_active', 'triplet_n_active']
    """

    def __init__(
        self,
        losses: Mapping[str, GivenLoss],
        weights: Mapping[str, float | int] | None = None,
        memory: Sequence[str] | None = None,
    ) -> None:
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
        self.memory = None if memory is None else _checked_names(memory, losses)
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
        """Whether all parts that are to meet a cross-batch memory of groups can."""
        return all(part.supports_memory for _, part in self._remembering())

    @property
    def supports_pair_memory(self) -> bool:
        """Whether all parts that are to meet a memory of pairs can."""
        return all(part.supports_pair_memory for _, part in self._remembering())

    def check_memory(self) -> None:
        """Refuse parts that have no memory form, or not the same; see :meth:`SimilarityLoss.check_memory`."""
        for name, part in self._remembering():
            check_part_memory(part, f"CombinedLoss: {name}")
        if not self.supports_memory and not self.supports_pair_memory:
            kinds = {name: "groups" if part.supports_memory else "pairs" for name, part in self._remembering()}
            raise ConfigError(
                f"CombinedLoss: a cross-batch memory holds items of groups or of pairs, the parts are over {kinds}; "
                f"name in memory those of one kind, or leave out xbm"
            )

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        losses = {name: describe_loss(part) for name, part in self._named()}
        return {"losses": losses, "weights": dict(self.weights), "memory": self.memory}

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
        """Loss of a batch against a memory; see :meth:`SimilarityLoss.memory_loss`."""
        given = (embeddings, groups, memory_embeddings, memory_groups, own)
        if not self.supports_memory:
            return super().memory_loss(*given)
        return self._sum({name: part.memory_loss(*given) for name, part in self._remembering()})

    def memory_rows_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        items: Integer[Tensor, " batch"],
        memory: MemoryRows,
    ) -> Float[Tensor, ""]:
        """Loss of a batch against a memory; see :meth:`SimilarityLoss.memory_rows_loss`."""
        given = (embeddings, groups, items, memory)
        return self._sum({name: part.memory_rows_loss(*given) for name, part in self._remembering()})

    def remembered_rows(self, pairs: Int64[Tensor, "n_pairs 2"]) -> Int64[Tensor, " n"]:
        """What one of the parts wants to have remembered."""
        wanted = [part.remembered_rows(pairs) for _, part in self._remembering()]
        return wanted[0] if len(wanted) == 1 else torch.unique(torch.cat(wanted))

    def pair_memory_loss(
        self,
        embeddings: Float[Tensor, "rows dim"],
        pairs: Int64[Tensor, "n_pairs 2"],
        labels: Float[Tensor, " n_pairs"],
        subgroups: Integer[Tensor, " rows"],
        items: Integer[Tensor, " rows"],
        memory: MemoryRows,
    ) -> Float[Tensor, ""]:
        """Loss of a batch of pairs against a memory; see :meth:`SimilarityLoss.pair_memory_loss`."""
        given = (embeddings, pairs, labels, subgroups, items, memory)
        if not self.supports_pair_memory:
            return super().pair_memory_loss(*given)
        return self._sum({name: part.pair_memory_loss(*given) for name, part in self._remembering()})

    def _sum(self, losses: dict[str, Tensor]) -> Tensor:
        parts = dict(self._named())
        figures: dict[str, Tensor | float] = {f"loss_{name}": loss for name, loss in losses.items()}
        for name in losses:
            figures |= {f"{name}_{figure}": value for figure, value in parts[name].figures().items()}
        self.note(**figures, **total_active(figures.get(f"{name}_n_active") for name in losses))
        terms = [loss * self.weights[name] for name, loss in losses.items()]
        return sum(terms[1:], start=terms[0])

    def _remembering(self) -> list[tuple[str, SimilarityLoss]]:
        return [(name, part) for name, part in self._named() if self.memory is None or name in self.memory]

    def _named(self) -> list[tuple[str, SimilarityLoss]]:
        return [(name.removeprefix("loss_"), part) for name, part in self.parts.items()]  # type: ignore[misc]


def _checked_names(given: Sequence[str], losses: Mapping[str, Any]) -> list[str]:
    names = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if not names:
        raise ConfigError(f"CombinedLoss: memory must be a list of names of losses, got {given!r}; None for all")
    for name in names:
        if name not in losses:
            raise ConfigError(f"CombinedLoss: memory: no loss has the name {name!r}; {nearest(str(name), losses)}")
    return names
