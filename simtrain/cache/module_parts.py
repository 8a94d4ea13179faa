"""What of a torch module says what it computes, beside its weights and buffers."""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np
from torch import Tensor, nn

from simtrain.cache.installed_code import installed_version

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
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


def _counts(name: str, value: Any, configured: bool) -> bool:
    if hasattr(value, "backend_tokenizer"):
        return True
    if name.startswith("_"):
        return False
    return (is_plain(value) and not configured) or is_put_there(value)


def is_put_there(value: Any) -> bool:
    """Whether a value is a function, tensor or object of the user's: nothing that an installed class needs to make."""
    functions = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
    return isinstance(value, (*functions, Tensor, np.ndarray)) or installed_version(type(value).__module__) is None


def is_plain(value: Any) -> bool:
    """Whether a value is a number, text, bytes, None, or a tuple, list, set or dict of them."""
    if isinstance(value, dict):
        return is_plain(list(value.keys())) and is_plain(list(value.values()))
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes, Enum))
