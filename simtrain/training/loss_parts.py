"""From a dict of losses to the one that is minimised, and the figures for the log."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain.errors import ContractError

# "lossless_ratio" and "lossy_share" are figures, not losses.
_LOSS = re.compile(r"loss(?!less|y)")


def is_loss(name: str) -> bool:
    """Whether a key of a step's dict names a part of the loss: it contains ``loss``.

    Example:
        >>> [name for name in ("loss_ce", "aux_losses", "accuracy", "lossless_ratio") if is_loss(name)]
        ['loss_ce', 'aux_losses']
    """
    return _LOSS.search(name) is not None


def parse_losses(losses: Mapping[str, Any]) -> tuple[Float[Tensor, ""], OrderedDict[str, Tensor]]:
    """Add up the parts of a loss.

    Every value is a tensor, of which the mean is taken, or a list of tensors, whose means are added. Parts of the
    loss are the keys that contain ``loss``; the others are figures that are only logged.

    Args:
        losses: Name → tensor of any shape, or a list of such tensors.

    Returns:
        The total, a scalar with its graph, and name → scalar for the log, without graph: the total as ``loss`` first,
        then all given names in their order.

    Raises:
        ContractError: ``losses`` is no dict, no key contains ``loss``, a value is neither a tensor nor a list of
            tensors or is empty, or ``loss`` itself stands beside other parts, so that it is not clear whether it is
            their total.

    Example:
        >>> total, logged = parse_losses({"loss_a": torch.tensor([1.0, 3.0]), "accuracy": torch.tensor(0.5)})
        >>> total, {name: float(value) for name, value in logged.items()}
        (tensor(2.), {'loss': 2.0, 'loss_a': 2.0, 'accuracy': 0.5})
    """
    if not isinstance(losses, Mapping):
        raise ContractError(
            f"forward(mode='loss') should return a dict of losses by name, got {type(losses).__name__}; "
            f"return {{'loss': value}}"
        )
    means = {str(name): _mean(name, value) for name, value in losses.items()}
    parts = [name for name in means if is_loss(name)]
    if not parts:
        raise ContractError(
            f"no key of the dict of losses contains 'loss', got {list(means)}; name the part to minimise 'loss'"
        )
    if "loss" in parts and len(parts) > 1:
        raise ContractError(
            f"'loss' stands beside other parts, {parts}: is it their total or one of them? All keys that contain "
            f"'loss' are added up, so rename 'loss' to 'loss_main', or leave out the others"
        )
    total = torch.stack([means[name] for name in parts]).sum() if len(parts) > 1 else means[parts[0]]
    logged = {name: mean.detach() for name, mean in means.items() if name != "loss"}
    return total, OrderedDict(loss=total.detach(), **logged)


def _mean(name: str, value: Any) -> Tensor:
    tensors = [value] if isinstance(value, Tensor) else value
    if not isinstance(tensors, list) or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise ContractError(
            f"the value of {name!r} should be a tensor or a list of tensors, got {type(value).__name__}; "
            f"wrap a number as torch.tensor(value), or leave it out"
        )
    if not tensors or any(tensor.numel() == 0 for tensor in tensors):
        raise ContractError(f"the value of {name!r} is empty, so it has no mean; leave it out of this batch")
    means = [tensor.mean() if tensor.is_floating_point() else tensor.float().mean() for tensor in tensors]
    return means[0] if len(means) == 1 else torch.stack(means).sum()
