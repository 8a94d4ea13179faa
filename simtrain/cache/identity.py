"""Digests of functions, classes, modules and objects that are equal in every process.

The user's own code is read as far as it goes: bytecode, the variables and functions that it names, the classes that it
uses with their methods, whatever file they lie in. Installed packages stand for themselves by name and version.
Bytecode differs between minor versions of Python: that costs one filling and is never wrong.
"""

from __future__ import annotations

import copyreg
import functools
import types
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simtrain.cache.code_names import is_users_module, named_values
from simtrain.cache.digests import Digest, class_name, full_name, node, script_name, tensor_digest, value_digest
from simtrain.cache.installed_code import installed_version
from simtrain.cache.module_parts import is_plain, looks_of, other_states, own_tensors, parts_of, places_of
from simtrain.cache.traced_code import traced_code
from simtrain.encoders.text_identity import lasting_rules
from simtrain.errors import CacheError

_NAMED_KINDS = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
# What __dict__ and __weakref__ are, and __orig_bases__ and __class__ hold.
_PUT_BY_PYTHON = (types.GetSetDescriptorType, types.MemberDescriptorType, type)
_TOKENIZER_SETTINGS = (
    *("model_max_length", "padding_side", "truncation_side", "model_input_names"),
    *("special_tokens_map", "split_special_tokens", "chat_template"),
)
_TOKENIZER_RUNTIME = frozenset({"name_or_path", "init_inputs", "init_kwargs", "deprecation_warnings", "verbose"})


class Identity:
    """Digests of values of any kind; knows the path to the value at hand, so that cycles end.

    Args:
        encoder: Its modules are named, not digested again, where a collate function refers to them.
        ignored: Names of attributes and variables that say nothing of what is computed.
    """

    def __init__(self, encoder: nn.Module | None = None, ignored: Collection[str] = ()) -> None:
        modules = encoder.named_modules() if encoder is not None else ()
        self._known = {id(module): name for name, module in modules}
        self._ignored = frozenset(ignored)
        self._path: list[int] = []
        self._classes: dict[int, Digest] = {}
        self._variables: dict[tuple[int, str], tuple[str, Any]] = {}

    def whole(self, tag: str, *digests: Digest) -> str:
        """Digest of a tag, the digests of values, and all variables that these values' code refers to.

        Returns:
            32 hexadecimal digits.
        """
        done: dict[tuple[int, str], Digest] = {}
        while left := [key for key in self._variables if key not in done]:
            for key in left:  # each may name more
                name, value = self._variables[key]
                done[key] = node("variable", name.encode(), self._of_named(f"the variable {name!r}", value))
        default = torch.get_default_dtype()  # what torch.tensor([0.5]) is of
        unusual = [] if default is torch.float32 else [str(default).encode()]
        return node(tag, *digests, *sorted(done.values()), *unusual).hex()

    def of(self, value: Any) -> Digest:
        """Digest of any value."""
        return value_digest(value, self._of_uncommon)

    def of_module(self, module: nn.Module) -> Digest:
        """Digest of a module: classes, code and settings of all its parts, weights, buffers, states and tokenizers."""
        places = list(places_of(module))
        self._known.update({id(part): name for name, part, first in places if not (first or id(part) in self._known)})
        parts = [
            node(name, *self._of_part(name, part)) if first is None else node("again", name.encode(), first.encode())
            for name, part, first in places
        ]
        tensors = {name: content_digest(name, tensor) for name, tensor in own_tensors(places)}
        others = [(name, self._of_named(f"the state {name!r}", state)) for name, state in other_states(module, tensors)]
        return node("module", *parts, *(node(name, content) for name, content in [*tensors.items(), *others]))

    def _of_part(self, name: str, part: nn.Module) -> Iterator[Digest]:
        yield self._of_class(type(part))
        yield looks_of(part).encode()
        yield self.of(traced_code(part))
        for attribute, value in parts_of(part):
            if attribute not in self._ignored:
                place = f"the attribute {f'{name}.{attribute}'.lstrip('.')!r} of the encoder"
                yield node(attribute, self._of_named(place, value))

    def _of_named(self, place: str, value: Any) -> Digest:
        try:
            return self.of(value)
        except CacheError as error:
            raise CacheError(f"{place}: {error}") from error

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
            return self._of_code(value)
        if isinstance(value, types.MethodType):
            return node("method", self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, (staticmethod, classmethod)):
            return node(type(value).__name__, self.of(value.__func__))
        if isinstance(value, property):
            return node("property", self.of([value.fget, value.fset]))
        if isinstance(value, functools.cached_property):  # holds a lock
            return node("cached property", self.of(value.func))
        if isinstance(value, functools.partial):
            parts = [value.func, value.args, value.keywords, *([vars(value)] if vars(value) else ())]
            return node("partial", *(self.of(part) for part in parts), *self._of_own_class(value, functools.partial))
        if isinstance(value, nn.Module):
            known = self._known.get(id(value))
            return self.of_module(value) if known is None else node("module of the encoder", known.encode())
        if isinstance(value, Path):
            return node("path", str(value).encode("utf-8", "surrogatepass"))
        if isinstance(value, type):
            return self._of_class(value)
        if isinstance(value, types.ModuleType):
            return self._of_module_object(value)
        if isinstance(value, _NAMED_KINDS):
            return self._of_name(value)
        if hasattr(value, "get_vocab") and hasattr(value, "backend_tokenizer"):
            return self._of_tokenizer(value)
        return self._of_object(value)

    def _of_function(self, function: types.FunctionType) -> Digest:
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell_is_filled(cell)]
        attributes = {name: value for name, value in vars(function).items() if name != "__wrapped__"}
        version = installed_version(str(function.__globals__.get("__name__")))
        if version is None:
            for name, value in named_values(function):
                if name.rpartition(".")[2] not in self._ignored:
                    self._variables.setdefault((id(function.__globals__), name), (name, value))
        return node(
            "function",
            self._of_code(function.__code__),
            self.of((function.__defaults__, function.__kwdefaults__, attributes)),
            self.of(cells),
            function.__name__.encode() if version is not None else b"",
            str(version).encode(),
        )

    def _of_module_object(self, module: types.ModuleType) -> Digest:
        if is_users_module(module):  # whoever has it may read any of its variables
            for word, value in vars(module).items():
                if not word.startswith("__") and word not in self._ignored:
                    name = f"{script_name(module.__name__)}.{word}"
                    self._variables.setdefault((id(vars(module)), name), (name, value))
        version = str(installed_version(module.__name__))
        return node("library", str(script_name(module.__name__)).encode(), version.encode())

    def _of_code(self, code: types.CodeType) -> Digest:
        names = (code.co_names, code.co_varnames, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        caught = getattr(code, "co_exceptiontable", b"")  # from Python 3.11 on
        return node("code", code.co_code, caught, self.of(code.co_consts), self.of(names))

    def _of_class(self, kind: type) -> Digest:
        name = full_name(kind).encode()
        version = installed_version(kind.__module__)
        if version is not None:
            return node("library class", name, version.encode())
        if id(kind) not in self._classes:
            self._classes[id(kind)] = node("class at hand", name)  # what its own methods see of it
            own = [(name, value) for name, value in sorted(vars(kind).items()) if _says_something(name, value)]
            body = [node(name, self._of_member(kind, name, value)) for name, value in own if name not in self._ignored]
            bases = [self._of_class(base) for base in kind.__bases__] + self._of_own_class(kind, type)
            self._classes[id(kind)] = node("class", name, *bases, *body)
        return self._classes[id(kind)]

    def _of_own_class(self, value: Any, usual: type) -> list[Digest]:
        return [] if type(value) is usual else [self._of_class(type(value))]

    def _of_member(self, kind: type, name: str, value: Any) -> Digest:
        return self._of_named(f"{kind.__qualname__}.{name}", value)

    def _of_name(self, value: Any) -> Digest:
        owner = getattr(value, "__self__", None)
        bound = owner is not None and not isinstance(owner, (types.ModuleType, type))
        module = getattr(value, "__module__", None) or ""
        name = f"{module}.{getattr(value, '__qualname__', value.__name__)}"
        return node("name", name.encode(), self.of(owner) if bound else b"")

    def _of_tokenizer(self, tokenizer: Any) -> Digest:
        rules = lasting_rules(tokenizer.backend_tokenizer.to_str()).encode("utf-8", "surrogatepass")
        chosen = [repr(getattr(tokenizer, name, None)) for name in _TOKENIZER_SETTINGS]
        kind = type(tokenizer)
        own = [] if installed_version(kind.__module__) is not None else sorted(vars(tokenizer).items())
        plain = [(n, value) for n, value in own if n not in _TOKENIZER_RUNTIME and n[0] != "_" and is_plain(value)]
        return node("tokenizer", self._of_class(kind), rules, self.of(chosen), self.of(plain))

    def _of_object(self, value: Any) -> Digest:
        return node("object", self._of_class(type(value)), self._of_state(value))

    def _of_state(self, value: Any) -> Digest:
        # What pickle would write, without its bytes: those depend on which equal values are the same object.
        try:
            registered = copyreg.dispatch_table.get(type(value))  # such as regular expressions
            reduced = value.__reduce_ex__(4) if registered is None else registered(value)
        except Exception as error:  # any class may refuse in its own way
            raise CacheError(
                f"a {class_name(value)} that the collate function, key extractor or encoder refers to has no identity "
                f"({error}); use a function, or an object that can be pickled, or, if it says nothing of what is "
                f"computed, name it in a class or function attribute `cache_ignores = {{...}}`"
            ) from error
        if isinstance(reduced, str):
            # functools.cache and its like say their name, and have what they call.
            wrapped = getattr(value, "__wrapped__", None)
            return node("global", reduced.encode()) if wrapped is None else self.of(wrapped)
        factory, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        return node(
            "state",
            f"{factory.__module__}.{factory.__qualname__}".encode(),
            self.of(arguments),
            self.of(self._told(state)),
            self.of(list(items or ())),
            self.of(list(pairs or ())),
        )

    def _told(self, state: Any) -> Any:
        if isinstance(state, dict) and self._ignored:
            return {name: value for name, value in state.items() if name not in self._ignored}
        return state


def _says_something(name: str, value: Any) -> bool:
    # __dict__, __doc__, __annotations__, the registries of abc and the like: what Python itself puts into a class.
    if name.startswith("_abc_") or name == "cache_ignores":
        return False
    dunder = name.startswith("__") and name.endswith("__")
    does_something = callable(value) or hasattr(value, "__get__")
    return not dunder or (does_something and not isinstance(value, _PUT_BY_PYTHON))


def cell_is_filled(cell: types.CellType) -> bool:
    """Whether a variable of a closure has a value yet."""
    try:
        cell.cell_contents  # noqa: B018 - reading is the test
    except ValueError:
        return False
    return True


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
