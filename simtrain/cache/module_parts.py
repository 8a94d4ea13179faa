"""What of a torch module says what it computes, beside its weights and buffers."""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Container, Iterable, Iterator
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simtrain.cache.installed_code import installed_version

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
_SCALARS = {bool, int, float, str, bytes, type(None)}
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
# What torch itself keeps in a module, runtime state, and places of files.
_SKIPPED = frozenset(vars(nn.Module())) | {"name_or_path", "dump_patches", "call_super_init", "cache_ignores"}


def ignored_names(thing: Any) -> frozenset[str]:
    """Names in the ``cache_ignores`` of an encoder or function and of its base classes: a subclass adds to them.

    Example:
        >>> from simtrain.encoders import VisionEncoder
        >>> class Counting(VisionEncoder):
        ...     cache_ignores = {"n_images"}
        >>> sorted(ignored_names(Counting))
        ['_placed', 'n_images']
    """
    classes = thing.__mro__ if isinstance(thing, type) else type(thing).__mro__
    named = [getattr(thing, "cache_ignores", ()), *(vars(base).get("cache_ignores", ()) for base in classes)]
    return frozenset().union(*named)


def places_of(module: nn.Module) -> Iterator[tuple[str, nn.Module, str | None]]:
    """All places of a module that parts are at, those that hold a part once more included.

    Yields:
        Name of the place, the part, and the name of the place that it was first met at, None there.

    Example:
        >>> act = nn.ReLU()
        >>> [(name, first) for name, _, first in places_of(nn.Sequential(act, act))]
        [('', None), ('0', None), ('1', '0')]
    """
    first: dict[int, str] = {}
    waiting = [("", module)]
    while waiting:
        name, part = waiting.pop()
        yield name, part, first.get(id(part))
        if id(part) not in first:
            first[id(part)] = name
            waiting += reversed([(f"{name}.{word}".lstrip("."), own) for word, own in _inside(part) if own is not None])


def _inside(part: nn.Module) -> Iterable[tuple[str, nn.Module | None]]:
    # A scripted module is known by what it would be saved as, with all inside.
    return () if isinstance(part, torch.jit.ScriptModule) else part._modules.items()


def looks_of(part: nn.Module) -> str:
    """The settings that a module prints, without addresses in memory.

    Example:
        >>> looks_of(nn.Dropout(0.5))
        'p=0.5, inplace=False'
    """
    return _ADDRESS.sub("", part.extra_repr())


def parts_of(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Settings, attributes and forward hooks of a module, without its submodules, weights and buffers.

    Of a class of the user's these are all attributes, private ones too. Of a class of an installed package they are
    what ``get_config_dict`` says, or else public plain values, and whatever functions, tensors and objects of the
    user's own were put there: the rest is what that class made of its settings.

    Args:
        part: Any module.

    Yields:
        Pairs of a name and a value of any kind.

    Example:
        >>> dict(parts_of(nn.Flatten(start_dim=2)))
        {'end_dim': -1, 'start_dim': 2}
    """
    config: Any = getattr(part, "get_config_dict", dict)()
    if config:
        yield "config", config
    is_own = installed_version(type(part).__module__) is None
    for name, value in sorted(vars(part).items()):
        if name not in _SKIPPED and (is_own or _counts(name, value, configured=bool(config))):
            yield name, value
    for name in _HOOKS:
        hooks = list(getattr(part, name, {}).values())
        if hooks:
            yield name, hooks


def own_tensors(places: Iterable[tuple[str, nn.Module, str | None]]) -> Iterator[tuple[str, Tensor]]:
    """Weights and buffers by name; one that several parts share, by all of its names."""
    for name, part, first in places:
        if first is None:
            # The prefix comes before a dot, also where the name is empty.
            yield from part.named_parameters(name, recurse=False, remove_duplicate=False)
            yield from part.named_buffers(name, recurse=False, remove_duplicate=False)


def other_states(module: nn.Module, names: Container[str]) -> Iterator[tuple[str, Any]]:
    """What a module would save besides its weights and buffers: packed weights of quantized layers, extra states."""
    return ((name, value) for name, value in module.state_dict().items() if name not in names)


def _counts(name: str, value: Any, configured: bool) -> bool:
    if hasattr(value, "backend_tokenizer"):
        return True
    if name.startswith("_"):  # an installed class keeps there what it made, but it makes nothing of the user's
        return is_users(value)
    return (is_plain(value) and not configured) or is_put_there(value)


def is_put_there(value: Any) -> bool:
    """Whether a value is, or holds, a function, tensor or object of the user's: no installed class needs to make it."""
    is_one = isinstance(value, (*_FUNCTIONS, Tensor, np.ndarray))
    return is_one or any(map(is_put_there, _held(value))) or is_users(value)


def is_users(value: Any) -> bool:
    """Whether a value is, or holds, a function or an object of a class that is not of an installed package."""
    if type(value) in _SCALARS:  # there may be many
        return False
    if isinstance(value, functools.partial):
        return any(map(is_users, (value.func, value.args, value.keywords)))
    if isinstance(value, types.MethodType):
        return is_users(value.__func__)
    named = value if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)) else type(value)
    module = getattr(named, "__module__", None)
    return any(map(is_users, _held(value))) or (module is not None and installed_version(module) is None)


def _held(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (tuple, list, set, frozenset)) else ()


def is_plain(value: Any) -> bool:
    """Whether a value is a number, text, bytes, None, or a tuple, list, set or dict of them."""
    if isinstance(value, dict):
        return is_plain(list(value.keys())) and is_plain(list(value.values()))
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes, Enum))
