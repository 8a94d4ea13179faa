"""Bounds on gradients, and what they measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from simtrain.errors import ConfigError, nearest

# Kind of clipping → its bound, and what else it takes.
_SETTINGS = {"norm": ("max_norm", "norm_type"), "value": ("clip_value",)}


def clip_gradients(
    parameters: Iterable[Tensor],
    type: str = "norm",
    *,
    max_norm: float | int | None = None,
    norm_type: float | int = 2.0,
    clip_value: float | int | None = None,
) -> Tensor:
    """Clip the gradients of parameters in place; parameters without a gradient are passed over.

    Args:
        parameters: Whose gradients are clipped.
        type: ``norm`` scales all gradients together; ``value`` cuts every element to ``[-clip_value, clip_value]``.
        max_norm: Largest norm of all gradients together; for ``norm``.
        norm_type: Order of the norm; for ``norm``.
        clip_value: Largest magnitude of an element; for ``value``.

    Returns:
        The norm of all gradients together before clipping, of the order ``norm_type``; 0 where there are none.

    Raises:
        ConfigError: The settings are not those of a kind of clipping.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> (weight * torch.tensor([3.0, 4.0])).sum().backward()
        >>> clip_gradients([weight], max_norm=1.0).item()
        5.0
        >>> weight.grad
        tensor([0.6000, 0.8000])
    """
    bounds = {"max_norm": max_norm, "clip_value": clip_value}
    settings = {key: value for key, value in bounds.items() if value is not None}
    check_clipping({"type": type, **settings, **({"norm_type": norm_type} if type == "norm" else {})})
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    if not with_gradient:
        return torch.tensor(0.0)
    if max_norm is not None and not any(p.grad.is_sparse for p in with_gradient if p.grad is not None):
        return nn.utils.clip_grad_norm_(with_gradient, max_norm, norm_type)
    norm = _total_norm([parameter.grad for parameter in with_gradient if parameter.grad is not None], norm_type)
    assert clip_value is not None
    nn.utils.clip_grad_value_(with_gradient, clip_value)
    return norm


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor | None:
    """Euclidean norm of all gradients together; None where there are none.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> (weight * torch.tensor([3.0, 4.0])).sum().backward()
        >>> gradient_norm([weight])
        tensor(5.)
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return _total_norm(gradients, 2.0) if gradients else None


def check_clipping(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check the keyword arguments of :func:`clip_gradients` before there is a gradient.

    Returns:
        The settings as a dict, ``type`` filled in.

    Raises:
        ConfigError: One is missing, unknown, belongs to the other ``type`` or is out of its range.

    Example:
        >>> check_clipping({"max_norm": 1.0})
        {'type': 'norm', 'max_norm': 1.0}
    """
    checked: dict[str, Any] = {"type": "norm", **settings}
    kind = checked["type"]
    if kind not in _SETTINGS:
        raise ConfigError(f"unknown type of gradient clipping {kind!r}; {nearest(str(kind), _SETTINGS)}")
    for word in checked:
        if word not in ("type", *_SETTINGS[kind]):
            raise ConfigError(
                f"gradient clipping by {kind} has no setting {word!r}; {nearest(word, ('type', *_SETTINGS[kind]))}"
            )
    bound = _SETTINGS[kind][0]
    if bound not in checked:
        raise ConfigError(f"gradient clipping by {kind} needs {bound!r}: the bound")
    for word in _SETTINGS[kind]:
        _check_positive(word, checked.get(word, 1.0))
    return checked


def _check_positive(word: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"{word} should be a number above 0, got {value!r}")
    if word != "norm_type" and math.isinf(value):
        raise ConfigError(f"{word} should be finite, got {value!r}; leave clipping out for no bound")


def _total_norm(gradients: list[Tensor], norm_type: float | int) -> Tensor:
    if any(gradient.is_sparse for gradient in gradients):
        raise ConfigError("sparse gradients cannot be clipped; leave clipping out, or build NgramEncoder(sparse=False)")
    norms = [torch.linalg.vector_norm(gradient, norm_type) for gradient in gradients]
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]), norm_type)
    return total
