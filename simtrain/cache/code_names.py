"""The names that a function looks up outside of itself, and what they stand for."""

from __future__ import annotations

import dis
import importlib
import importlib.util
import itertools
import types
from collections.abc import Iterator
from typing import Any

from simtrain.cache.digests import script_name
from simtrain.cache.installed_code import installed_version


def named_values(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function refers to: variables of its module, and what it imports when it is called.

    A module of the user's stands for those of its variables that the function names, so that ``helpers.clean(x)``
    refers to ``clean``, and for all of them where the module is handed on; an installed module stands for itself.

    Args:
        function: A function; the functions and comprehensions inside it count as its own.

    Yields:
        Pairs of a name that is equal in every process, and the value. Names that nothing is bound to (yet) are
        left out, and so are builtins.

    Example:
        >>> import math
        >>> area = eval("lambda r: math.pi * r * len(UNITS)", {"math": math, "UNITS": ["m"]})
        >>> [name for name, _ in named_values(area)]
        ['None.UNITS', 'None.math']
    """
    module = script_name(function.__globals__.get("__name__"))
    codes = list(_codes(function.__code__))
    words = {name for code in codes for name in code.co_names}
    handed_on = {name for code in codes for name in _handed_on(code)}
    for name in sorted({name for code in codes for name in _looked_up(code)}):
        if name in function.__globals__:
            value = function.__globals__[name]
            yield from _values(f"{module}.{name}", value, words)
            if name in handed_on and is_users_module(value):
                yield f"{module}.{name}", value
    package = str(function.__globals__.get("__package__") or "")
    for name in sorted({name for code in codes for name in _imported(code, package)}):
        if installed_version(name) is None and (imported := _import(name)) is not None:
            yield from _values(name, imported, words)


def _values(name: str, value: Any, words: set[str], path: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    if not is_users_module(value):
        yield name, value
    elif id(value) not in path:
        for word in sorted(words & vars(value).keys()):
            yield from _values(f"{value.__name__}.{word}", vars(value)[word], words, (*path, id(value)))


def is_users_module(value: Any) -> bool:
    """Whether a value is a module that is not of an installed package.

    Example:
        >>> is_users_module(dis)
        False
    """
    return isinstance(value, types.ModuleType) and installed_version(value.__name__) is None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _looked_up(code: types.CodeType) -> set[str]:
    return {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def _handed_on(code: types.CodeType) -> set[str]:
    # Names of which not just an attribute is taken: what is read of them is seen elsewhere, if at all.
    steps = list(dis.get_instructions(code))
    pairs = itertools.pairwise(steps)
    return {
        step.argval
        for step, following in pairs
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and following.opname not in ("LOAD_ATTR", "LOAD_METHOD")
    }


def _imported(code: types.CodeType, package: str) -> Iterator[str]:
    steps = list(dis.get_instructions(code))
    for position, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level = steps[position - 2].argval  # pushed before the list of names
            dots = "." * level if isinstance(level, int) else ""
            yield importlib.util.resolve_name(dots + step.argval, package) if dots and package else step.argval


def _import(name: str) -> types.ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None  # an optional import: the function itself has to cope with it
