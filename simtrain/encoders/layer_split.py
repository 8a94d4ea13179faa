"""A transformer cut in two between its layers: what comes out of the first ones is all that the last ones need.

Neither half is a copy. Each is the model's own code run over its own modules, with layers that do nothing in the place
of the other half's, so that masks and positions are the architecture's business in both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simtrain.encoders.partial_freezing import layer_stack, parse_trainable
from simtrain.errors import ConfigError

Run = Callable[[nn.Module], Any]


@runtime_checkable
class SplitEncoder(Protocol):
    """An encoder whose first layers are frozen, so that their output can be cached and only the rest is run."""

    @property
    def state_size(self) -> int:
        """Number of dimensions of a token's state between the two parts."""
        ...

    def check_split(self) -> None:
        """Raise a ConfigError unless the encoder can be cut here, and both parts together equal its forward."""
        ...

    def frozen_part(self, batch: Any) -> tuple[Tensor, Tensor]:
        """From a collated batch to token states ``(batch, tokens, state_size)`` and mask ``(batch, tokens)``."""
        ...

    def trainable_part(self, states: Tensor, mask: Tensor) -> Tensor:
        """From token states and mask to embeddings ``(batch, embedding_size)``."""
        ...

    def frozen_modules(self) -> nn.Module:
        """A module of the frozen parts alone: what the states depend on, for their identity."""
        ...


@dataclass(frozen=True)
class LayerSplit:
    """Where a transformer is cut.

    Args:
        first: Number of the first layer of the second half.
        in_tuples: Whether the layers give a tuple, and not the states alone (older versions of transformers).
    """

    first: int
    in_tuples: bool

    @classmethod
    def of(cls, root: nn.Module, trainable: bool | str, run: Run) -> LayerSplit:
        """The split of a transformer whose last layers are trained.

        Args:
            root: A module around the transformer's stack of layers.
            trainable: ``"last:N"``.
            run: Calls ``root``, or a module like it, on any batch.
        """
        return cls(len(layer_stack(root)) - (parse_trainable(trainable) or 0), layers_give_tuples(root, run))

    def states(self, root: nn.Module, run: Run) -> Float[Tensor, "batch tokens dim"]:
        """Run ``root`` up to the cut.

        Args:
            root: A module around the transformer's stack of layers.
            run: Calls ``root``, or a module like it, on the batch.
        """
        layers = list(layer_stack(root))
        leave = PassingLayer(layers[self.first], self.in_tuples)
        idle = [PassingLayer(layer, self.in_tuples) for layer in layers[self.first + 1 :]]
        run(with_layers(root, [*layers[: self.first], leave, *idle]))
        assert leave.passed is not None
        return leave.passed

    def second_half(self, root: nn.Module, states: Float[Tensor, "batch tokens dim"]) -> nn.Module:
        """``root`` as a module that goes on from ``states``, whatever it is given for embeddings of the tokens."""
        layers = list(layer_stack(root))
        idle = [PassingLayer(layer, self.in_tuples) for layer in layers[: self.first]]
        entry = EntryLayer(layers[self.first], states)
        return with_layers(root, [*idle, entry, *layers[self.first + 1 :]])


class PassingLayer(nn.Module):
    """Stands in the place of a layer, gives what it is given, and remembers that.

    Args:
        layer: The layer; loops over layers may ask it for its attributes.
        in_tuples: Whether the layers give tuples.
    """

    passed: Tensor | None

    def __init__(self, layer: nn.Module, in_tuples: bool) -> None:
        super().__init__()
        # Hidden from torch: a stand-in has no weights.
        self.__dict__["layer"], self.in_tuples, self.passed = layer, in_tuples, None

    def forward(self, *args: Any, **words: Any) -> Any:
        """Give the states back."""
        self.passed = args[0] if args else words["hidden_states"]
        return (self.passed,) if self.in_tuples else self.passed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["layer"], name)


class EntryLayer(PassingLayer):
    """The first layer of the second half: takes states of its own in the place of those that it is given."""

    def __init__(self, layer: nn.Module, states: Tensor) -> None:
        super().__init__(layer, False)
        self.states = states

    def forward(self, *args: Any, **words: Any) -> Any:
        """Run the layer on the states."""
        if args:
            return self.layer(self.states, *args[1:], **words)
        return self.layer(**{**words, "hidden_states": self.states})


def with_layers(root: nn.Module, layers: Sequence[nn.Module]) -> nn.Module:
    """``root`` with other modules in its stack of layers; all else is shared, and ``root`` stays as it is.

    Example:
        >>> root = nn.Sequential(nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]), nn.ReLU())
        >>> with_layers(root, [nn.Tanh(), nn.Tanh()])
        Sequential(
          (0): ModuleList(
            (0-1): 2 x Tanh()
          )
          (1): ReLU()
        )
    """
    stack = layer_stack(root)
    path = next(name for name, module in root.named_modules() if module is stack)
    twin = copy.copy(stack)
    twin._modules = {str(number): layer for number, layer in enumerate(layers)}
    return _replaced(root, path.split(".") if path else [], twin)


def without(root: nn.Module, excluded: Collection[nn.Module]) -> nn.Module:
    """``root`` without some of its modules, for looking at the others; it shares their tensors and cannot be run.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> without(net, [net[0]])
        Sequential(
          (1): ReLU()
        )
    """
    ids = {id(module) for module in excluded}
    twin = copy.copy(root)
    kept = {name: child for name, child in root._modules.items() if child is not None and id(child) not in ids}
    twin._modules = {name: without(child, excluded) for name, child in kept.items()}
    return twin


def layers_give_tuples(root: nn.Module, run: Run) -> bool:
    """Whether the layers of ``root`` give tuples; runs it once."""
    given: list[bool] = []
    hook = layer_stack(root)[0].register_forward_hook(lambda _, __, output: given.append(isinstance(output, tuple)))
    try:
        with in_eval_mode(root):
            run(root)
    finally:
        hook.remove()
    return given[0]


def check_parts(encoder: nn.Module, trainable: bool | str, has_adapters: bool, trained: Sequence[nn.Module]) -> None:
    """Raise unless an encoder has a frozen first part and a trained second one.

    Raises:
        ConfigError: It is frozen or trained as a whole, has adapters, or a weight of the first part takes gradients.
    """
    kind = type(encoder).__name__
    if has_adapters:
        raise ConfigError(
            f"the {kind} has LoRA adapters, which change the output of its first layers while they are trained; a "
            f"boundary needs trainable='last:N' without lora"
        )
    if not isinstance(trainable, str):
        advice = "cache its embeddings, without boundary" if trainable is False else "nothing of it can be cached"
        raise ConfigError(
            f"a boundary needs an encoder with trainable='last:N', and this {kind} has trainable={trainable}: {advice}"
        )
    above = {id(weight) for part in trained for weight in part.parameters()}
    for name, weight in encoder.named_parameters():
        if weight.requires_grad and id(weight) not in above:
            raise ConfigError(
                f"the weight {name!r} of the {kind} lies below the boundary and takes gradients, so that what is "
                f"cached would change; call requires_grad_(False) on it, or train more layers"
            )


def check_equal(encoder: nn.Module, batch: Any) -> None:
    """Raise unless both parts of an encoder together give what its forward gives for a batch.

    Raises:
        ConfigError: They do not.
    """
    parts: Any = encoder
    try:
        with in_eval_mode(encoder):
            whole = encoder(batch)
            states, mask = parts.frozen_part(batch)
            joined = parts.trainable_part(states, mask)
    except (TypeError, AttributeError, LookupError, ValueError) as error:  # a layer was not given all that it takes
        raise ConfigError(uncut(encoder)) from error
    tolerance = 1e-4 if states.dtype is torch.float32 else 1e-2
    if whole.shape != joined.shape or not torch.allclose(whole, joined, atol=tolerance, rtol=tolerance):
        raise ConfigError(uncut(encoder))


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Without gradients and without dropout, which would take random numbers from training."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def uncut(encoder: nn.Module) -> str:
    """Say that an encoder's model cannot be cut."""
    return (
        f"the {type(encoder).__name__}'s model cannot be cut between its layers: the last ones take more than the "
        f"states that come out of those before them; leave boundary out for it"
    )


def _replaced(root: nn.Module, path: list[str], module: nn.Module) -> nn.Module:
    if not path:
        return module
    twin = copy.copy(root)
    child = root._modules[path[0]]
    assert child is not None
    twin._modules = {**root._modules, path[0]: _replaced(child, path[1:], module)}
    return twin
