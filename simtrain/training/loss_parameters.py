"""The loss's own parameters (class weights, proxies, a learnt temperature) in the optimizer: never left untrained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Subset

from simtrain.errors import ConfigError
from simtrain.losses import SimilarityLoss
from simtrain.losses.class_logits import check_class_numbers
from simtrain.losses.settings import check_positive

_logger = logging.getLogger(__name__)


def check_loss_lr(loss_lr: float | int | None, loss: nn.Module) -> float | None:
    """Refuse a rate that is none, or that nothing would be trained with.

    Raises:
        ConfigError: It is not a finite number above zero, or the loss has no parameters.

    Example:
        >>> check_loss_lr(0.1, nn.Linear(1, 1))
        0.1
    """
    if loss_lr is None:
        return None
    if not any(True for _ in loss.parameters()):
        raise ConfigError(
            f"loss_lr={loss_lr!r} is the rate of the loss's own parameters, and {type(loss).__name__} has none"
        )
    return check_positive("TrainableModel", "loss_lr", loss_lr)


def optimizer_with_loss(
    make: Callable[[list[nn.Parameter]], Optimizer],
    parameters: Sequence[nn.Parameter],
    loss: nn.Module,
    loss_lr: float | None,
) -> Optimizer:
    """Make an optimizer in which the loss's parameters have a rate of their own.

    Args:
        make: Function from parameters to an optimizer.
        parameters: All that is to be trained, the loss's among them.
        loss: The loss.
        loss_lr: Rate of the loss's parameters; None: that of all others, in one group with them.

    Returns:
        The optimizer. With a rate, the loss's parameters are its last group.

    Example:
        >>> import torch
        >>> head, loss = nn.Linear(2, 2), nn.Linear(1, 1, bias=False)
        >>> every, sgd = [*head.parameters(), loss.weight], lambda parameters: torch.optim.SGD(parameters, lr=0.1)
        >>> made = optimizer_with_loss(sgd, every, loss, 5.0)
        >>> [group["lr"] for group in made.param_groups]
        [0.1, 5.0]
    """
    own = {id(parameter) for parameter in loss.parameters()}
    others = [parameter for parameter in parameters if id(parameter) not in own]
    if loss_lr is None or len(others) == len(parameters):
        return make(list(parameters))
    ours = [parameter for parameter in parameters if id(parameter) in own]
    # Not as two groups from the start: `make` may be a function of the user's own that takes a list of parameters.
    optimizer = make(others or ours)
    if others:
        optimizer.add_param_group({"params": ours, "lr": loss_lr})
    else:
        optimizer.param_groups[0]["lr"] = loss_lr
    return optimizer


def train_loss_parameters(
    loss: nn.Module, optimizers: Sequence[Optimizer], has_schedule: bool, loss_lr: float | None = None
) -> list[str]:
    """Put the parameters of a loss that no optimizer has into the optimizer, as a group of their own.

    An own ``configure_optimizers`` may well name ``self.model.parameters()`` only, which are encoders and head.
    Parameters with ``requires_grad=False`` are left alone.

    Args:
        loss: The loss.
        optimizers: All optimizers of the model.
        has_schedule: Whether there are learning-rate schedules: they would not know of a new group.
        loss_lr: Rate of the new group; None: the optimizer's default.

    Returns:
        Names of the parameters that were put in.

    Raises:
        ConfigError: There are such parameters, but several optimizers, or a schedule.

    Example:
        >>> import torch
        >>> head, loss = nn.Linear(2, 2), nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
        >>> train_loss_parameters(loss, [optimizer], has_schedule=False), len(optimizer.param_groups)
        (['weight'], 2)
    """
    known = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    left = {name: p for name, p in loss.named_parameters() if p.requires_grad and id(p) not in known}
    if not left or not optimizers:
        return []
    names = ", ".join(left)
    if len(optimizers) > 1 or has_schedule:
        why = (
            "which of several optimizers they belong to is not clear"
            if len(optimizers) > 1
            else ("a schedule is there already, which would not know of them")
        )
        raise ConfigError(
            f"{type(loss).__name__} has parameters that configure_optimizers gives to no optimizer, so that they would "
            f"never be trained: {names}; {why}. Give them to an optimizer (self.parameters() has them, or "
            f"self.loss.parameters()), or freeze them: self.loss.requires_grad_(False)"
        )
    optimizers[0].add_param_group({"params": list(left.values()), **({} if loss_lr is None else {"lr": loss_lr})})
    _logger.warning(
        "configure_optimizers gives no optimizer the parameters of %s (%s): they were added as a group of their own",
        type(loss).__name__,
        names,
    )
    return list(left)


def check_training_groups(loss: SimilarityLoss, loader: Any) -> None:
    """Refuse training data whose groups have no class weight in the loss, before anything is computed.

    Args:
        loss: A loss, or a combination of them; those with a ``num_groups`` are looked at.
        loader: The training loader; one whose groups cannot be told without reading the data is not looked at.

    Raises:
        DataError: A group is outside of ``0 .. num_groups - 1``.
    """
    counted = [part for part in loss.modules() if isinstance(getattr(part, "num_groups", None), int)]
    groups = _groups_of(loader) if counted else None
    if groups is None:
        return
    for part in counted:
        check_class_numbers(type(part).__name__, groups.cpu(), int(part.num_groups))  # type: ignore[arg-type]


def _groups_of(loader: Any) -> Tensor | None:
    # A loader of cache rows has the groups in its collate function.
    labels = getattr(getattr(loader, "collate_fn", None), "labels", None)
    if isinstance(labels, Mapping) and "groups" in labels:
        return torch.as_tensor(labels["groups"])
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, Subset) and hasattr(dataset.dataset, "groups"):
        return torch.as_tensor(dataset.dataset.groups)[list(dataset.indices)]
    groups = getattr(dataset, "groups", None)
    return None if groups is None else torch.as_tensor(groups)
