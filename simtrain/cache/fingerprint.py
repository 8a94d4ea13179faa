"""Fingerprints: what an encoder and its collate function are, equal in every process.

Functions are known by their bytecode, so an edited function has another fingerprint; so does the same function
under another minor version of Python. That costs one filling and is never wrong.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from simtrain.cache.digests import Digest, class_name, node, tensor_digest, value_digest
from simtrain.encoders.text_identity import lasting_rules
from simtrain.errors import CacheError

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
# Runtime state and places of files: neither says what a module computes.
_SKIPPED_ATTRIBUTES = frozenset({"training", "name_or_path", "dump_patches", "call_super_init"})


def encoder_fingerprint(encoder: nn.Module) -> str:
    """Identity of an encoder: class, config, structure, all weights and buffers, and collate function.

    Costs one pass over the weights, some gigabytes a second.

    Args:
        encoder: An :class:`~simtrain.encoders.Encoder`, or any module with ``get_collate_fn``. Where
            ``get_config_dict`` is missing or empty, public attributes that are plain values stand for it.

    Returns:
        32 hexadecimal digits, equal in every process for an equal encoder.

    Raises:
        CacheError: A weight has no content (it is on the meta device), or the collate function refers to
            something that has no identity, such as an open file.

    Example:
        >>> from simtrain.encoders import Encoder
        >>> encoder_fingerprint(Encoder()) == encoder_fingerprint(Encoder())
        True
    """
    identity = Identity(encoder)
    collate_fn = encoder.get_collate_fn()  # type: ignore[operator]
    return node("encoder", identity.of_module(encoder), identity.of(collate_fn)).hex()


def callable_fingerprint(function: Callable[..., Any]) -> str:
    """Identity of a function, partial, bound method or callable object.

    A function is its bytecode, constants, names, defaults and closure, with the functions and plain values of its
    own module that it names; a callable object is its class and state.

    Args:
        function: What to identify.

    Returns:
        32 hexadecimal digits, equal in every process.

    Raises:
        CacheError: It refers to something that has no identity, such as an open file or a lock.

    Example:
        >>> callable_fingerprint(lambda x: x + 1) == callable_fingerprint(lambda x: x + 2)
        False
    """
    return Identity().of(function).hex()


def plain_attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Public attributes of a module that are plain values, in order of their names."""
    for name, value in sorted(vars(module).items()):
        if not name.startswith("_") and name not in _SKIPPED_ATTRIBUTES and is_plain(value):
            yield name, value


def is_plain(value: Any) -> bool:
    """Whether a value is a number, text, bytes, None, or a tuple, list, set or dict of them."""
    if isinstance(value, dict):
        return is_plain(list(value.keys())) and is_plain(list(value.values()))
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes, Enum))


class Identity:
    """Digests of values of any kind; knows the path to the value at hand, so that cycles end.

    Args:
        encoder: Its modules are named, not digested again, where a collate function refers to them.
    """

    def __init__(self, encoder: nn.Module | None = None) -> None:
        modules = encoder.named_modules() if encoder is not None else ()
        self._known = {id(module): name for name, module in modules}
        self._path: list[int] = []

    def of(self, value: Any) -> Digest:
        """Digest of any value."""
        return value_digest(value, self._of_uncommon)

    def _of_uncommon(self, value: Any) -> Digest:
        if id(value) in self._path:
            # The distance, not the place: it is the same from wherever the cycle is entered.
            return node("cycle", str(len(self._path) - self._path.index(id(value))).encode())
        self._path.append(id(value))
        try:
            return self._of_kind(value)
        finally:
            self._path.pop()

    def _of_kind(self, value: Any) -> Digest:
        if isinstance(value, types.FunctionType):
            return self._of_function(without_type_checks(value))
        if isinstance(value, types.CodeType):
            return node("code", value.co_code, self.of(value.co_consts), self.of(value.co_names))
        if isinstance(value, types.MethodType):
            return node("method", self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, functools.partial):
            return node("partial", self.of(value.func), self.of(value.args), self.of(value.keywords))
        if isinstance(value, nn.Module):
            known = self._known.get(id(value))
            return self.of_module(value) if known is None else node("module of the encoder", known.encode())
        if isinstance(value, Path):
            return node("path", str(value).encode("utf-8", "surrogatepass"))
        if isinstance(value, (type, types.BuiltinFunctionType, types.ModuleType)):
            return self._of_name(value)
        if hasattr(value, "get_vocab") and hasattr(value, "backend_tokenizer"):
            return self._of_tokenizer(value)
        return self._of_object(value)

    def _of_function(self, function: types.FunctionType) -> Digest:
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell_is_filled(cell)]
        defaults = (function.__defaults__, function.__kwdefaults__)
        return node(
            "function", self.of(function.__code__), self.of(defaults), self.of(cells), self.of(named_values(function))
        )

    def _of_name(self, value: Any) -> Digest:
        owner = getattr(value, "__self__", None)
        bound = owner is not None and not isinstance(owner, (types.ModuleType, type))
        name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
        return node("name", name.encode(), self.of(owner) if bound else b"")

    def _of_tokenizer(self, tokenizer: Any) -> Digest:
        rules = lasting_rules(tokenizer.backend_tokenizer.to_str()).encode("utf-8", "surrogatepass")
        settings = ("model_max_length", "padding_side", "truncation_side", "model_input_names")
        chosen = [repr(getattr(tokenizer, name, None)) for name in settings]
        return node("tokenizer", class_name(tokenizer).encode(), rules, self.of(chosen))

    def _of_object(self, value: Any) -> Digest:
        call = inspect.getattr_static(type(value), "__call__", None)
        code = self.of(call) if isinstance(call, types.FunctionType) else b""
        wrapped = getattr(value, "__wrapped__", None)  # functools.cache and its like: their state is no identity
        state = self.of(wrapped) if wrapped is not None else self._of_state(value)
        return node("object", class_name(value).encode(), code, state)

    def _of_state(self, value: Any) -> Digest:
        # What pickle would write, without its bytes: those depend on which equal values are the same object.
        try:
            reduced = value.__reduce_ex__(4)
        except TypeError as error:
            raise CacheError(
                f"a {class_name(value)} that the collate function or key extractor refers to has no identity "
                f"({error}); use a function, or an object that can be pickled"
            ) from error
        if isinstance(reduced, str):
            return node("global", reduced.encode())
        factory, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        return node(
            "state",
            f"{factory.__module__}.{factory.__qualname__}".encode(),
            self.of(arguments),
            self.of(state),
            self.of(list(items or ())),
            self.of(list(pairs or ())),
        )

    def of_module(self, module: nn.Module) -> Digest:
        """Digest of a module: classes and settings of all its parts, weights, buffers and tokenizers."""
        parts = [self._of_part(name, part) for name, part in module.named_modules()]
        tensors = [*module.named_parameters(), *module.named_buffers()]
        return node("module", *parts, *(node(name, content_digest(name, tensor)) for name, tensor in tensors))

    def _of_part(self, name: str, part: nn.Module) -> Digest:
        looks = _ADDRESS.sub("", part.extra_repr())
        forward = inspect.unwrap(type(part).forward)
        code = self.of(forward.__code__) if isinstance(forward, types.FunctionType) else b""
        config: Any = getattr(part, "get_config_dict", dict)() or list(plain_attributes(part))
        tokenizers = [self.of(value) for value in vars(part).values() if hasattr(value, "backend_tokenizer")]
        return node(name, class_name(part).encode(), looks.encode(), code, self.of(config), *tokenizers)


def cell_is_filled(cell: types.CellType) -> bool:
    """Whether a variable of a closure has a value yet."""
    try:
        cell.cell_contents  # noqa: B018 - reading is the test
    except ValueError:
        return False
    return True


def named_values(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Constants, classes and functions of its own module that a function names."""
    values = [(name, function.__globals__.get(name)) for name in sorted(names_in(function.__code__))]
    return [
        (name, value)
        for name, value in values
        if (value is not None and is_plain(value))
        or isinstance(value, type)
        or (isinstance(value, types.FunctionType) and value.__module__ == function.__module__)
    ]


def names_in(code: types.CodeType) -> set[str]:
    """Names that a function and the functions inside it look up."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*(names_in(each) for each in inner))


def without_type_checks(function: types.FunctionType) -> types.FunctionType:
    """Strip the wrappers that run-time type checkers put around a function: they do not change what it does."""
    while hasattr(function, "__wrapped__") and (
        function.__globals__.get("__name__", "").startswith(("jaxtyping", "beartype"))
        or function.__code__.co_filename.startswith("<@beartype")
    ):
        function = function.__wrapped__
    return function


def content_digest(name: str, tensor: Tensor) -> Digest:
    """Digest of a weight.

    Raises:
        CacheError: It has no content.
    """
    if tensor.is_meta:
        raise CacheError(
            f"the weight {name!r} is on the meta device and has no content; load the encoder's weights first"
        )
    return tensor_digest(tensor)
