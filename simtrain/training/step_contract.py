"""How a loop calls a model's steps, and what it asks of their results."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor

from simtrain.errors import ContractError
from simtrain.training.loss_check import check_loss
from simtrain.training.loss_parts import is_loss

#: What a loop can give a step beside the batch. The rest of a step's arguments need defaults.
OFFERED = ("batch_idx", "dataloader_idx", "optim_wrapper")


def call_step(step: Callable[..., Any], data_batch: Any, **offered: Any) -> Any:
    """Call a step with the batch, and with those of the offered arguments that it names.

    Steps are written in many forms: ``(batch)``, ``(batch, batch_idx)``, ``(batch, *args, **kwargs)``,
    ``(data, optim_wrapper)``. Arguments are given by name only, so that the number of a batch never ends up in a
    parameter that means something else; a step that takes ``*args`` and nothing else gets the number there.

    Args:
        step: Bound method or function.
        data_batch: Its first argument.
        **offered: Values by name, of :data:`OFFERED`.

    Returns:
        What the step returns.

    Raises:
        ContractError: The step needs an argument that no loop gives.

    Example:
        >>> call_step(lambda batch: batch, "a", batch_idx=3)
        'a'
        >>> call_step(lambda batch, batch_idx: (batch, batch_idx), "a", batch_idx=3)
        ('a', 3)
        >>> call_step(lambda batch, k=1: (batch, k), "a", batch_idx=3)
        ('a', 1)
    """
    accepted = _accepted(step)
    positions = [offered[name] for name in accepted.by_position if name in offered]
    words = {name: value for name, value in offered.items() if name in accepted.by_name}
    return step(data_batch, *positions, **words)


def wants_optim_wrapper(step: Callable[..., Any]) -> bool:
    """Whether a training step cannot do without an ``optim_wrapper``, so that it updates the parameters itself."""
    parameter = inspect.signature(step).parameters.get("optim_wrapper")
    return parameter is not None and parameter.default is parameter.empty


def given_wrapper(args: tuple[Any, ...], optim_wrapper: Any) -> Any:
    """The ``optim_wrapper`` of a call, which may have been given by name or by position."""
    if optim_wrapper is not None:
        return optim_wrapper
    return next((arg for arg in args if hasattr(arg, "update_params")), None)


def takes_mode(forward: Callable[..., Any]) -> bool:
    """Whether a ``forward`` has a parameter ``mode``."""
    return "mode" in inspect.signature(forward).parameters


def check_result(results: Any, name: str) -> None:
    """Raise a :class:`ContractError` where a validation or test step returns neither a dict, a list nor None."""
    if results is not None and not isinstance(results, (Mapping, list, tuple, Tensor)):
        raise ContractError(f"{name} should return a dict, or a list of predictions, got {type(results).__name__}")


def check_training_result(results: Any, name: str, needs_graph: bool = True, raises: bool = True) -> bool:
    """Check what a training step returned, before anything is computed from it.

    Args:
        results: The step's result; None leaves the batch out.
        name: Name of the step for messages, such as ``"ToyModel.train_step"``.
        needs_graph: The loop is going to backpropagate ``loss``.
        raises: A loss that is not finite is an error.

    Returns:
        Whether the loss, where it is to be backpropagated, is finite.

    Raises:
        ContractError: The result is no dict, has no ``loss``, or its ``loss`` is not a scalar tensor with a graph.
        DataError: The loss is not finite.

    Example:
        >>> check_training_result({"accuracy": 0.5}, "ToyModel.train_step")
        Traceback (most recent call last):
        ...
        simtrain.errors.ContractError: ToyModel.train_step should return a dict with the key 'loss', got the keys ['accuracy']
    """  # noqa: E501 - the line of an error
    if results is None:
        return True
    if not isinstance(results, Mapping):
        raise ContractError(
            f"{name} should return a dict with the key 'loss', got {type(results).__name__}; return {{'loss': value}}"
        )
    if not needs_graph:
        return True
    if "loss" not in results:
        raise ContractError(f"{name} should return a dict with the key 'loss', got the keys {list(results)}")
    return check_loss(results["loss"], f"the loss of {name}", raises)


def figures(results: Any) -> dict[str, Any]:
    """The scalars of a step's results that belong in the log: losses and other figures, tensors or numbers."""
    if not isinstance(results, Mapping):
        return {}
    return {str(name): value for name, value in results.items() if _is_figure(name, value)}


def _is_figure(name: str, value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 or (is_loss(str(name)) and value.numel() == 1)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class _Accepted(NamedTuple):
    by_name: frozenset[str]
    by_position: tuple[str, ...]


# Weakly: a step may be a closure over a model.
_KNOWN: WeakKeyDictionary[Callable[..., Any], _Accepted] = WeakKeyDictionary()


def _accepted(step: Callable[..., Any]) -> _Accepted:
    function = getattr(step, "__func__", step)
    known = _KNOWN.get(function)
    if known is None:
        # Once for each function: reading a signature takes as long as a small step.
        known = _KNOWN[function] = _read(function, inspect.ismethod(step))
    return known


def _read(function: Callable[..., Any], is_method: bool) -> _Accepted:
    parameters = list(inspect.signature(function).parameters.values())[1 if is_method else 0 :]
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in by_position:
        # (*args, **kwargs): a wrapper around a step of unknown form gets the batch alone.
        return _Accepted(frozenset(), ())
    rest = parameters[1:]
    _check_asked(function, rest)
    named = frozenset(p.name for p in rest if p.name in OFFERED and p.kind is not p.POSITIONAL_ONLY)
    placed = tuple(p.name for p in rest if p.name in OFFERED and p.kind is p.POSITIONAL_ONLY)
    only_rest = any(p.kind is p.VAR_POSITIONAL for p in rest) and not any(p.kind in by_position for p in rest)
    return _Accepted(named, ("batch_idx",) if only_rest else placed)


def _check_asked(function: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> None:
    for p in parameters:
        needed = p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        if needed and p.name not in OFFERED:
            raise ContractError(
                f"{function.__qualname__} asks for {p.name!r}, which no loop gives; a step is called with the batch "
                f"and, where it names them, {', '.join(OFFERED)}: give {p.name!r} a default"
            )
