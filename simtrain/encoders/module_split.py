"""Any network cut in two at one of its modules: what that module is given is all that the second half needs.

It suits networks that hand one tensor from module to module, in the order in which the modules are registered. Neither
half is a copy: each is the network's own code run over its own modules, with modules that do nothing in the place of
the other half's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simtrain.encoders.layer_split import EntryLayer, PassingLayer, in_eval_mode
from simtrain.errors import ConfigError


@runtime_checkable
class DenseSplitEncoder(Protocol):
    """An encoder whose first modules are frozen and give one tensor of a fixed shape for each item."""

    def get_state_shape(self) -> tuple[int, ...]:
        """Shape of what lies between the two parts, for one item."""
        ...

    def check_split(self) -> None:
        """Raise a ConfigError unless the encoder can be cut here, and both parts together equal its forward."""
        ...

    def frozen_part(self, batch: Any) -> Tensor:
        """From a collated batch to states ``(batch, *state_shape)``."""
        ...

    def trainable_part(self, states: Tensor) -> Tensor:
        """From states to embeddings ``(batch, embedding_size)``."""
        ...

    def frozen_modules(self) -> nn.Module:
        """A module of the frozen parts alone: what the states depend on, for their identity."""
        ...


class FrozenPart(nn.Module):
    """The frozen parts of an encoder with the settings that they depend on. For looking at, not for running.

    Args:
        module: The frozen modules.
        settings: Plain values.
    """

    def __init__(self, module: nn.Module, settings: dict[str, Any]) -> None:
        super().__init__()
        self.module, self.settings = module, settings


class _ReachedError(Exception):
    """The modules before the cut are done."""

    def __init__(self, states: Any) -> None:
        super().__init__()
        self.states = states


class _Leave(PassingLayer):
    """Stands in the place of the first module of the second half, and ends the run."""

    def forward(self, *args: Any, **words: Any) -> Any:
        if len(args) != 1 or words or not isinstance(args[0], Tensor):
            raise ConfigError("what the module is given is not one tensor")
        raise _ReachedError(args[0])


def states_before(root: nn.Module, part: nn.Module, batch: Any) -> Float[Tensor, "batch ..."]:
    """What ``part`` of a network is given for a batch; nothing behind it is run.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(2, 3))
        >>> states_before(net, net[2], torch.tensor([[[1.0], [-1.0]]]))
        tensor([[1., 0.]])
    """
    try:
        _replaced(root, part, _Leave(part, False), idle_before=False)(batch)
    except _ReachedError as reached:
        states: Tensor = reached.states
        return states
    raise ConfigError("the module is not run")


def second_half(root: nn.Module, part: nn.Module, states: Float[Tensor, "batch ..."]) -> Any:
    """What a network gives where ``part`` is given ``states``; nothing before it is run.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(2, 3))
        >>> second_half(net, net[2], torch.tensor([[1.0, 0.0]])).shape
        torch.Size([1, 3])
    """
    return _replaced(root, part, EntryLayer(part, states), idle_before=True)(states)


def check_halves(encoder: nn.Module, batch: Any, setting: str, trainable: bool | str) -> None:
    """Raise unless an encoder has a frozen first half, and both together give what its forward gives.

    Args:
        encoder: A :class:`DenseSplitEncoder`.
        batch: Any collated batch.
        setting: What ``trainable`` has to say for a cut, for messages.
        trainable: What it says.

    Raises:
        ConfigError: The encoder is frozen or trained as a whole, or cannot be cut.
    """
    kind, halves = type(encoder).__name__, encoder
    if not isinstance(trainable, str):
        advice = "cache its embeddings, without boundary" if trainable is False else "nothing of it can be cached"
        raise ConfigError(
            f"a boundary needs an encoder with trainable={setting}, and this {kind} has trainable={trainable}: {advice}"
        )
    assert isinstance(halves, DenseSplitEncoder)
    above = {id(weight) for weight in encoder.parameters()} - {id(w) for w in halves.frozen_modules().parameters()}
    for name, weight in encoder.named_parameters():
        if weight.requires_grad and id(weight) not in above:
            raise ConfigError(
                f"the weight {name!r} of the {kind} lies below the boundary and takes gradients, so that what is "
                f"cached would change; call requires_grad_(False) on it, or train more of the network"
            )
    try:
        with in_eval_mode(encoder):
            whole, joined = encoder(batch), halves.trainable_part(halves.frozen_part(batch))
    except (ConfigError, TypeError, AttributeError, LookupError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{_uncut(kind)} ({error})") from error
    tolerance = 1e-4 if whole.dtype is torch.float32 else 1e-2
    if whole.shape != joined.shape or not torch.allclose(whole, joined, atol=tolerance, rtol=tolerance):
        raise ConfigError(_uncut(kind))


def example_of(shape: Sequence[int], like: nn.Module, dtype: torch.dtype | None = None) -> Tensor:
    """Two random items of a shape, where a module's weights are and in their type; integers are from 0 to 255."""
    weight = next((p for p in like.parameters() if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(0)  # the numbers of training stay as they are
    if dtype is torch.uint8:
        return torch.randint(256, (2, *shape), generator=generator, dtype=dtype).to(weight.device)
    return torch.randn(2, *shape, generator=generator).to(weight.device, weight.dtype)


def _replaced(root: nn.Module, part: nn.Module, stand_in: nn.Module, idle_before: bool) -> nn.Module:
    """``root`` with another module in the place of ``part``, and idle ones before it; ``root`` stays as it is."""
    path = next(name for name, module in root.named_modules() if module is part)
    return _replaced_at(root, path.split(".") if path else [], stand_in, idle_before)


def _replaced_at(root: nn.Module, path: list[str], stand_in: nn.Module, idle_before: bool) -> nn.Module:
    if not path:
        return stand_in
    twin = copy.copy(root)
    names = list(root._modules)
    before = set(names[: names.index(path[0])]) if idle_before else set()
    idle = {name: PassingLayer(child, False) for name, child in root._modules.items() if child and name in before}
    child = root._modules[path[0]]
    assert child is not None
    twin._modules = {**root._modules, **idle, path[0]: _replaced_at(child, path[1:], stand_in, idle_before)}
    return twin


def _uncut(kind: str) -> str:
    return (
        f"the {kind}'s network cannot be cut where training begins: what comes behind takes more than the one tensor "
        f"that comes out of the modules before; train more of it, or leave boundary out for it"
    )
