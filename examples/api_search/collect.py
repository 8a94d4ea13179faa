"""Collect (description, API entry) pairs from installed Python packages.

The description is the first sentence of a docstring; the entry is the qualified name of the function, class or method
and its signature. Training pairs come from third-party packages, test pairs from the standard library of the running
interpreter, so that the two share no package:

    python collect.py train train.jsonl
    python collect.py test test.jsonl

Each line has the columns ``query`` (the description), ``document`` (the entry as it is encoded), ``entry`` (the
qualified name and the signature as Python writes them) and ``package``.
"""

import argparse
import contextlib
import importlib
import inspect
import io
import json
import pkgutil
import re
import sys
import time
import types
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from docstrings import entry_text, first_sentence, is_description, split_signature

TRAIN_PACKAGES = ("numpy", "scipy", "sklearn", "torch")
# They open a browser or a window, print a poem, install something, or were removed from later Python versions.
SKIPPED_MODULES = frozenset(
    {"antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "this", "tkinter", "turtle", "turtledemo"}
)
# `torch.utils.tensorboard` can be imported only where that package is, and the pairs are to be the same everywhere.
SKIPPED_PARTS = frozenset({"__main__", "conftest", "externals", "setup", "tensorboard", "test", "testing", "tests"})
PLAIN_DEFAULTS = (bool, int, float, complex, str, bytes, type, type(None))


@dataclass(frozen=True)
class ApiEntry:
    """One function, class or method and what its docstring says it does.

    Attributes:
        description: The first sentence of the docstring, without markup.
        name: The canonical qualified name.
        signature: The signature with its parentheses, or an empty string.
        package: The top-level package.
    """

    description: str
    name: str
    signature: str
    package: str


@dataclass
class Found:
    """An object with every public name under which it was reached."""

    value: object
    package: str
    names: list[str] = field(default_factory=list)


@dataclass
class Survey:
    """What a collection did: how many modules were imported, and which could not be."""

    modules: int = 0
    failed: list[str] = field(default_factory=list)


def collect(packages: Sequence[str], survey: Survey) -> list[ApiEntry]:
    """Collect the documented public functions, classes and methods of some packages.

    Args:
        packages: The names of top-level modules or packages.
        survey: Filled with what was imported.

    Returns:
        The entries, sorted by name. Every object and every name occurs once.
    """
    with _quiet():
        entries = [entry for item in _find_objects(packages, survey) if (entry := _make_entry(item)) is not None]
    by_name = {entry.name: entry for entry in reversed(entries)}
    return [by_name[name] for name in sorted(by_name)]


def standard_library() -> list[str]:
    """Name the public top-level modules of the standard library that are safe to import.

    Returns:
        The names in alphabetical order.
    """
    return sorted(name for name in sys.stdlib_module_names if is_public(name) and name not in SKIPPED_MODULES)


def is_public(name: str) -> bool:
    """Tell whether no part of a dotted module name is private or belongs to tests.

    Args:
        name: The dotted name.

    Returns:
        Whether the module is part of a public API.
    """
    return not any(part.startswith("_") or part in SKIPPED_PARTS for part in name.split("."))


def write_jsonl(path: Path, entries: Sequence[ApiEntry]) -> None:
    """Write entries as one JSON object a line.

    Args:
        path: The file to write.
        entries: The entries.
    """
    with path.open("w", encoding="utf-8") as file:
        for entry in entries:
            row = {
                "query": entry.description,
                "document": entry_text(entry.name, entry.signature),
                "entry": entry.name + entry.signature,
                "package": entry.package,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence imports and deprecated attributes, and leave no bytecode behind."""
    sink = io.StringIO()
    previous, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.dont_write_bytecode = previous


def _walk(name: str, survey: Survey) -> Iterator[types.ModuleType]:
    """Import a module and its public submodules."""
    try:
        module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException:  # An import can raise anything, SystemExit included.
        survey.failed.append(name)
        return
    survey.modules += 1
    yield module
    for child in sorted(info.name for info in pkgutil.iter_modules(getattr(module, "__path__", []))):
        if is_public(child):
            yield from _walk(f"{name}.{child}", survey)


def _find_objects(packages: Sequence[str], survey: Survey) -> list[Found]:
    """Reach the public functions, classes and methods of some packages, each once."""
    found: dict[int, Found] = {}
    standard = set(packages) <= sys.stdlib_module_names
    for package in packages:
        roots = sys.stdlib_module_names if standard else frozenset({package})
        for module in _walk(package, survey):
            for name, value in _public_members(module, roots, package):
                found.setdefault(id(value), Found(value, package)).names.append(name)
    return list(found.values())


def _public_members(module: types.ModuleType, roots: frozenset[str], package: str) -> Iterator[tuple[str, object]]:
    """List the functions and classes of a module that belong to certain packages, and the methods of the classes."""
    for attribute in _public_names(module):
        value = _get(module, attribute)
        if isinstance(value, types.ModuleType) or not callable(value) or _text_attribute(value, "__name__") == "":
            continue
        if (_text_attribute(value, "__module__") or package).partition(".")[0] not in roots:
            continue
        name = f"{module.__name__}.{attribute}"
        yield name, value
        if isinstance(value, type):
            yield from ((f"{name}.{method}", member) for method, member in _methods(value))


def _public_names(module: types.ModuleType) -> list[str]:
    """List the names that a module offers."""
    names = getattr(module, "__all__", None) or vars(module)
    return sorted(name for name in names if isinstance(name, str) and not name.startswith("_"))


def _methods(cls: type) -> Iterator[tuple[str, object]]:
    """List the public methods that a class defines itself or has from a private base of the same package."""
    package = cls.__module__.partition(".")[0]
    for base in cls.__mro__:
        is_private = base.__name__.startswith("_") or "._" in base.__module__
        if base is not cls and not (is_private and base.__module__.partition(".")[0] == package):
            continue
        for name, value in sorted(vars(base).items()):
            method = getattr(value, "__func__", value)
            if not name.startswith("_") and callable(method) and not isinstance(method, type):
                yield name, method


def _get(owner: object, attribute: str) -> object:
    """Read an attribute, or None where reading it fails."""
    try:
        return getattr(owner, attribute, None)
    except Exception:  # Lazy and deprecated attributes can raise anything.
        return None


def _text_attribute(value: object, attribute: str) -> str:
    """Read an attribute that should be a string but need not be."""
    text = _get(value, attribute)
    return text if isinstance(text, str) else ""


def _make_entry(found: Found) -> ApiEntry | None:
    """Make an entry of an object, unless its docstring describes nothing."""
    doc = _text_attribute(found.value, "__doc__")
    if doc == type(found.value).__doc__:
        return None
    doc = inspect.cleandoc(doc)
    description = first_sentence(doc)
    if not is_description(description):
        return None
    name = _canonical_name(found)
    signature = _reproducible(_signature(found.value) or split_signature(doc)[0])
    return ApiEntry(description, name, signature, found.package)


def _canonical_name(found: Found) -> str:
    """Prefer a name that the object itself has, then the shortest path."""
    own = _text_attribute(found.value, "__name__")
    qualified = _text_attribute(found.value, "__qualname__") or own

    def rank(name: str) -> tuple[bool, bool, int, int, str]:
        return not f".{name}".endswith(f".{qualified}"), not name.endswith(own), name.count("."), len(name), name

    return min(found.names, key=rank)


def _signature(value: object) -> str:
    """Write the signature of an object, or nothing where Python knows none."""
    if not callable(value):
        return ""
    try:
        signature = inspect.signature(value)
        return str(signature.replace(parameters=[_plain(p) for p in signature.parameters.values()]))
    except Exception:  # Signatures are computed by arbitrary code for some objects.
        return ""


def _plain(parameter: inspect.Parameter) -> inspect.Parameter:
    """Hide a default that is no simple value: it may print as the environment, with whatever secrets that holds."""
    if parameter.default is inspect.Parameter.empty or isinstance(parameter.default, PLAIN_DEFAULTS):
        return parameter
    return parameter.replace(default=...)


def _reproducible(signature: str) -> str:
    """Remove what differs from run to run: memory addresses and the order of sets."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", signature)
    return re.sub(r"\{('[^{}:]*)\}", lambda match: f"{{{', '.join(sorted(match.group(1).split(', ')))}}}", text)


def main() -> None:
    """Collect the pairs of one split and write them."""
    parser = argparse.ArgumentParser(description="Collect (description, API entry) pairs.")
    parser.add_argument("split", choices=["train", "test"], help="third-party packages or the standard library")
    parser.add_argument("output", type=Path, help="the .jsonl file to write")
    arguments = parser.parse_args()
    start, survey = time.perf_counter(), Survey()
    entries = collect(TRAIN_PACKAGES if arguments.split == "train" else standard_library(), survey)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(arguments.output, entries)
    print(
        f"{arguments.split}: {len(entries)} pairs from {survey.modules} modules "
        f"({len(survey.failed)} could not be imported) in {time.perf_counter() - start:.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
