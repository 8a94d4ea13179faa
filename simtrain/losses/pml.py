"""Losses of pytorch-metric-learning as simtrain's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.batch_checks import check_group_batch, check_memory
from simtrain.losses.candidate_loss import zero_loss
from simtrain.losses.class_logits import check_class_numbers
from simtrain.losses.group_loss import GroupLoss
from simtrain.losses.pml_active import counted
from simtrain.losses.pml_dry_run import dry_run
from simtrain.losses.pml_indices import Indices, memory_pairs, without_own
from simtrain.losses.pml_parts import build_pml

# Those that learn without labels.
_WITHOUT_LABELS = {"ManifoldLoss"}
# Beyond it, the gradient of a zero vector is that of its division by next to nothing.
_STEEPEST = 1e6
TWO_VIEWS = {"SelfSupervisedLoss", "VICRegLoss"}


@registry.losses.register_module()
class PytorchMetricLearningWrapper(GroupLoss):
    """A loss of pytorch-metric-learning, with a miner of it or without.

    In configs, ``{type: pml.CircleLoss, m: 0.4, distance: {type: pml.CosineSimilarity}, miner: {type: pml....}}`` is
    this class around what is named. Half precision is widened to float32 before the loss sees it. Proxies and class
    weights are parameters of this loss: in the optimizer and in checkpoints.

    A cross-batch memory works with the losses that pytorch-metric-learning's own ``CrossBatchMemory`` takes; the miner
    then mines in the memory, and what it found of an item's own entries is taken out. ``n_active`` counts the pairs,
    triplets or rows, whatever the loss is a mean of, with a loss other than zero.

    Args:
        loss: The loss, or its config.
        miner: A miner, or its config; default: the loss takes all pairs or triplets.

    Raises:
        ConfigError: A name or a setting is unknown or wrong, or the loss takes pairs of views and not groups
            (``SelfSupervisedLoss``, ``VICRegLoss``: name them with ``pml.`` in a config, or use
            :class:`PytorchMetricLearningPairs`).

    Example:
        >>> loss = PytorchMetricLearningWrapper(
        ...     {"type": "pml.TripletMarginLoss", "margin": 0.2}, miner={"type": "pml.BatchHardMiner"}
        ... )
        >>> loss(torch.eye(4), torch.tensor([0, 0, 1, 1])), loss.supports_memory
        (tensor(0.2000), True)
    """

    #: Configs within its config are not losses of the registry: it reads them itself.
    builds_own_parts = True

    def __init__(self, loss: nn.Module | Mapping[str, Any], miner: nn.Module | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._config = {"loss": loss, "miner": miner}
        self.loss, self.miner = part_of(loss, "losses"), None if miner is None else part_of(miner, "miners")
        self._name = type(self.loss).__name__
        if self._name in TWO_VIEWS:
            raise ConfigError(
                f"pml.{self._name} compares two views of each item and takes no groups; train it with pairs: "
                f"PytorchMetricLearningPairs, or {{'type': 'pml.{self._name}'}} in a config"
            )
        check_scalar(self.loss)

    @property
    def num_groups(self) -> int | None:
        """Number of groups that the loss has class weights or proxies for; None for one that has none."""
        given = self._config["loss"]
        number = given.get("num_classes") if isinstance(given, Mapping) else getattr(self.loss, "num_classes", None)
        return int(number) if isinstance(number, int) else None

    @property
    def supports_memory(self) -> bool:
        """Whether the loss works with a cross-batch memory."""
        from pytorch_metric_learning.losses import CrossBatchMemory

        return self._name in CrossBatchMemory.supported_losses()

    def check_memory(self) -> None:
        """Refuse a loss, miner or reducer that takes no memory, tried out on a few vectors.

        See :meth:`SimilarityLoss.check_memory`. Nothing is changed by it, random numbers neither.
        """
        if not self.supports_memory:
            raise ConfigError(
                f"a cross-batch memory works with losses that have a memory form, pml.{self._name} has none; leave out "
                f"xbm or choose another loss, pml.TripletMarginLoss for example"
            )
        dry_run(self, self.num_groups)

    def forward(self, embeddings: Float[Tensor, "batch dim"], groups: Integer[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Loss of a batch; see :meth:`GroupLoss.forward`."""
        check_group_batch(embeddings, groups)
        self.note(n_active=0)
        known = self._known(groups)
        if known is not None:
            embeddings, groups = embeddings[known], groups[known]
        if len(embeddings) == 0:
            return zero_loss(embeddings) + (0.0 if known is None else torch.nan)
        with torch.autocast(embeddings.device.type, enabled=False):
            wide, labels = widened(embeddings), groups.long()
            if self._name in _WITHOUT_LABELS:
                return self._counted(wide) if len(wide) > 1 else zero_loss(embeddings)
            indices: Indices | None = None if self.miner is None else self.miner(wide, labels)
            return self._counted(wide, labels, indices)

    def memory_loss(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        memory_embeddings: Float[Tensor, "memory dim"],
        memory_groups: Integer[Tensor, " memory"],
        own: Bool[Tensor, "batch memory"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of a batch against a memory; see :meth:`GroupLoss.memory_loss`."""
        if not self.supports_memory:
            return super().memory_loss(embeddings, groups, memory_embeddings, memory_groups, own)
        check_group_batch(embeddings, groups)
        check_memory(embeddings, memory_embeddings, memory_groups, own)
        if len(embeddings) == 0 or len(memory_embeddings) == 0:
            self.note(n_active=0)
            return zero_loss(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            wide, labels, memory_labels = widened(embeddings), groups.long(), memory_groups.long()
            memory = memory_embeddings.detach().to(wide)
            if self.miner is None:
                indices = memory_pairs(labels, memory_labels, own)
            else:
                indices = without_own(self.miner(wide, labels, memory, memory_labels), own)
            return self._counted(wide, labels, indices, memory, memory_labels)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values.

        Raises:
            ConfigError: The loss or the miner was passed as an object, which does not know its settings.
        """
        return as_config(self._config)

    def extra_repr(self) -> str:
        """Settings, where they are known; the parts are shown by themselves."""
        return ""

    def _counted(self, embeddings: Tensor, *given: Any) -> Tensor:
        with counted(self.loss, len(embeddings)) as active:
            value = scalar(self.loss(embeddings, *given))
        self.note(n_active=active.number(value))
        _forget_graphs(self.loss)
        # A NaN is to be noticed, also where the package leaves it out.
        return (zero_loss(embeddings) if active.is_empty else value) + embeddings.detach().sum() * 0

    def _known(self, groups: Tensor) -> Tensor | None:
        # As for simtrain's own class weights: refused in training, left out in evaluation.
        if self.num_groups is None:
            return None
        if self.training:
            check_class_numbers(f"pml.{self._name}", groups, self.num_groups)
            return None
        return (groups >= 0) & (groups < self.num_groups)


def _forget_graphs(loss: nn.Module) -> None:
    # What DynamicSoftMarginLoss remembers of a batch would draw the next backward pass into this one's.
    for part in loss.modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                setattr(part, name, value.detach())


def part_of(given: nn.Module | Mapping[str, Any], kind: str) -> nn.Module:
    """A part of pytorch-metric-learning as it was given, or built from its config."""
    if isinstance(given, nn.Module):
        return given
    return build_pml(given, kind)


def as_config(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The given parts as JSON values; an error names one that was passed as an object."""
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            raise ConfigError(
                f"the {name} {type(part).__name__} was passed as an object, which does not know its settings; pass "
                f"{{'type': 'pml.{type(part).__name__}', ...}} where the config is to be saved"
            )
    return {name: dict(part) if isinstance(part, Mapping) else part for name, part in parts.items()}


def check_scalar(loss: nn.Module) -> None:
    """Refuse a loss whose reducer gives no single number."""
    if any(type(part).__name__ == "DoNothingReducer" for part in loss.modules()):
        raise ConfigError(
            "pml.DoNothingReducer gives no number to minimise; use another reducer, such as pml.MeanReducer"
        )


def widened(embeddings: Tensor) -> Tensor:
    """Half precision as float32: in it, some distances overflow and others do not run.

    Where a formula has no derivative, the gradient of a row counts as zero: at a zero that is brought to length 1 (the
    package divides by 1e-12 there) and at the ends of an arc cosine.
    """
    wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)).view_as(embeddings)
    if wide.requires_grad:
        is_zero = ~wide.detach().any(dim=1)
        wide.register_hook(lambda gradient: _derivative(gradient, is_zero))  # type: ignore[no-untyped-call]
    return wide


def _derivative(gradient: Tensor, is_zero: Tensor) -> Tensor:
    largest = gradient.abs().amax(dim=1)
    # Not `>`: a NaN, too.
    without = ~largest.isfinite() | (is_zero & ~(largest <= _STEEPEST))
    return gradient.masked_fill(without.unsqueeze(1), 0)


def scalar(value: Tensor) -> Tensor:
    """The value of a loss as a scalar."""
    # Some give a tensor of one element.
    return value.reshape(())
