"""Collect (description, API entry) pairs from installed Python packages.

The description is the first sentence of a docstring; the entry is the qualified name of the function, class or method
and its signature. Training pairs come from third-party packages and test pairs from the standard library of the
running interpreter, so that the two sets share no package:

    python collect.py --output data

writes ``train.jsonl`` and ``test.jsonl`` with the columns ``query``, ``document``, ``subgroup`` and ``package``.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TRAIN_PACKAGES = ("numpy", "scipy", "sklearn", "torch")
# They open a browser or a window, print a poem, install something, or were removed from later Python versions.
SKIPPED_MODULES = frozenset(
    {"antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "this", "tkinter", "turtle", "turtledemo"}
)
SKIPPED_PARTS = frozenset({"__main__", "conftest", "externals", "setup", "test", "testing", "tests"})
ABBREVIATIONS = r"(?<!e\.g)(?<!i\.e)(?<!\betc)(?<!\bvs)(?<!\bcf)"
BOILERPLATE = re.compile(r"(See|Alias (for|of)|In-place version|Overloaded function|DEPRECATED|TODO|Same as)\b")
MIN_WORDS = 3
MIN_BOILERPLATE_WORDS = 7
_PLAIN_DEFAULTS = (bool, int, float, complex, str, bytes, type, type(None))
IMPLICIT_PARAMETERS = frozenset({"self", "cls", "args", "kwargs", "kwds"})


@dataclass(frozen=True)
class ApiEntry:
    """One function, class or method and what its docstring says it does.

    Attributes:
        description: The first sentence of the docstring, without markup.
        text: The text to search: what `raw_entry_text` or `entry_text` made of the name and the signature.
        name: The canonical qualified name.
        package: The top-level package.
    """

    description: str
    text: str
    name: str
    package: str


@dataclass
class _Found:
    """An object with every public name under which it was reached."""

    value: object
    package: str
    names: list[str] = field(default_factory=list)


@dataclass
class Survey:
    """What a collection did.

    Attributes:
        modules: The number of imported modules.
        failed: The names of the modules that could not be imported.
    """

    modules: int = 0
    failed: list[str] = field(default_factory=list)


TextFormat = Callable[[str, str], str]


def collect(
    packages: Sequence[str], text_format: TextFormat | None = None, survey: Survey | None = None
) -> list[ApiEntry]:
    """Collect the documented public functions, classes and methods of some packages.

    Args:
        packages: The names of top-level modules or packages.
        text_format: Makes the entry text from the qualified name and the signature, `raw_entry_text` by default.
        survey: Filled with what was imported, if given.

    Returns:
        The entries, sorted by name. Every object and every name occurs once.
    """
    text_format = text_format or raw_entry_text
    survey = survey if survey is not None else Survey()
    with _quiet():
        found = _find_objects(packages, survey)
        entries = [entry for item in found if (entry := _make_entry(item, text_format)) is not None]
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


def raw_entry_text(name: str, signature: str) -> str:
    """Write an entry as Python does.

    Args:
        name: The qualified name.
        signature: The signature with its parentheses, or an empty string.

    Returns:
        The name followed by the signature.
    """
    return name + signature


def entry_text(name: str, signature: str) -> str:
    """Write an entry in words that a text encoder knows.

    Args:
        name: The qualified name.
        signature: The signature with its parentheses, or an empty string.

    Returns:
        The words of the name and, after a colon, the parameters without annotations and defaults.
    """
    parameters = ", ".join(parameter.replace("_", " ").strip() for parameter in parameter_names(signature))
    words = split_identifier(name)
    return f"{words}: {parameters}" if parameters else words


def split_identifier(name: str) -> str:
    """Split a dotted name into words at dots, underscores and changes of case.

    Args:
        name: The dotted name.

    Returns:
        The words, separated by spaces.
    """
    spaced = re.sub(r"[._]", " ", name)
    return " ".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", spaced).split())


def parameter_names(signature: str) -> list[str]:
    """List the parameters of a signature that say something about the function.

    Args:
        signature: The signature with its parentheses, from Python or from the first line of a docstring.

    Returns:
        The names, without ``self`` and the like.
    """
    end = matching_bracket(signature, 0) if signature.startswith("(") else -1
    matches = [re.match(r"[\s\[\]*]*([A-Za-z_]\w*)", part) for part in _split_top_level(signature[1 : max(end, 1)])]
    names = [match.group(1) for match in matches if match]
    return [name for name in names if name not in IMPLICIT_PARAMETERS]


def first_sentence(doc: str) -> str:
    """Take the first sentence from a docstring.

    Args:
        doc: The docstring with its common indentation removed.

    Returns:
        The sentence on one line without markup and final full stop, or an empty string if there is none.
    """
    _, body = split_signature(doc)
    paragraph = strip_markup(_first_paragraph(body))
    parts = re.split(rf"{ABBREVIATIONS}(?<=[.!?])\s+(?=[^a-z])", paragraph)
    return next((sentence for part in parts if (sentence := part.rstrip(".:! ").strip())), "")


def is_description(sentence: str) -> bool:
    """Tell whether a sentence says enough to find an entry by it.

    Args:
        sentence: The first sentence of a docstring.

    Returns:
        Whether it has a few words and is not just a reference to another entry.
    """
    words = len(re.findall(r"[A-Za-z]{2,}", sentence))
    return words >= (MIN_BOILERPLATE_WORDS if BOILERPLATE.match(sentence) else MIN_WORDS)


def split_signature(doc: str) -> tuple[str, str]:
    """Split the signatures off the beginning of a docstring.

    Args:
        doc: The docstring.

    Returns:
        The first signature with its parentheses, or an empty string, and the rest of the docstring.
    """
    signature, body = "", doc.strip()
    while match := re.match(r"[\w.]+ ?\(", body):
        end = matching_bracket(body, match.end() - 1)
        rest = body[end + 1 :]
        arrow = re.match(r"\s*->\s*(\([^()\n]*\)|[^\n.]*?)(?:\.\s|\.?$|\n|\s--+\s|\s{2,})", rest, re.MULTILINE)
        if end < 0 or not (arrow or re.match(r"\s*(\n|--|:\s|$)", rest)):
            break
        signature = signature or " ".join(body[match.end() - 1 : end + 1].split())
        body = rest[arrow.end() if arrow else 0 :].lstrip(" \n\t:-")
    return signature, body


def matching_bracket(text: str, start: int) -> int:
    """Find the bracket that closes another one.

    Args:
        text: The text.
        start: The position of the opening bracket.

    Returns:
        The position of the closing bracket, or -1 if there is none.
    """
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] in "([{") - (text[position] in ")]}")
        if depth == 0:
            return position
    return -1


def strip_markup(text: str) -> str:
    """Remove reStructuredText markup and line breaks.

    Args:
        text: The text.

    Returns:
        The plain text on one line.
    """
    text = re.sub(r":[a-zA-Z:]+:`~?!?\.?([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", text)
    text = re.sub(r"`{1,2}([^`]*)`{1,2}_{0,2}", r"\1", text)
    text = re.sub(r"\|(\w+)\|", r"\1", text)
    text = re.sub(r"\*{1,2}([\w ]+)\*{1,2}", r"\1", text)
    return " ".join(text.split())


def number_subgroups(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Number the connected components of pairs that share a description or a document.

    Args:
        pairs: The descriptions and documents.

    Returns:
        One number per pair, in the order of first occurrence.
    """
    parents = list(range(len(pairs)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first: dict[tuple[int, str], int] = {}
    for index, pair in enumerate(pairs):
        for column, text in enumerate(pair):
            parents[root(index)] = root(first.setdefault((column, text), index))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(len(pairs))]


def write_jsonl(path: Path, entries: Sequence[ApiEntry]) -> None:
    """Write entries as one JSON object a line.

    Args:
        path: The file to write.
        entries: The entries.
    """
    subgroups = number_subgroups([(entry.description, entry.text) for entry in entries])
    with path.open("w", encoding="utf-8") as file:
        for entry, subgroup in zip(entries, subgroups, strict=True):
            row = {
                "query": entry.description,
                "document": entry.text,
                "subgroup": subgroup,
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


def _find_objects(packages: Sequence[str], survey: Survey) -> list[_Found]:
    """Reach the public functions, classes and methods of some packages, each once."""
    found: dict[int, _Found] = {}
    standard = set(packages) <= sys.stdlib_module_names
    for package in packages:
        roots = sys.stdlib_module_names if standard else frozenset({package})
        for module in _walk(package, survey):
            for name, value in _public_members(module, roots, package):
                found.setdefault(id(value), _Found(value, package)).names.append(name)
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


def _make_entry(found: _Found, text_format: TextFormat) -> ApiEntry | None:
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
    return ApiEntry(description, text_format(name, signature), name, found.package)


def _canonical_name(found: _Found) -> str:
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
    if parameter.default is inspect.Parameter.empty or isinstance(parameter.default, _PLAIN_DEFAULTS):
        return parameter
    return parameter.replace(default=...)


def _reproducible(signature: str) -> str:
    """Remove what differs from run to run: memory addresses and the order of sets."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", signature)
    return re.sub(r"\{('[^{}:]*)\}", lambda match: f"{{{', '.join(sorted(match.group(1).split(', ')))}}}", text)


def _split_top_level(text: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    # A docstring puts optional parameters into square brackets, and an annotation a list of types.
    brackets = ("({", ")}") if "[," in text else ("({[", ")}]")
    parts, depth = [""], 0
    for character in text:
        depth += (character in brackets[0]) - (character in brackets[1])
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _first_paragraph(doc: str) -> str:
    """Take the first paragraph that is neither a directive nor an example; there is none behind a heading."""
    for paragraph in re.split(r"\n\s*\n", doc):
        if re.search(r"^\s*[-=~]{3,}\s*$", paragraph, re.MULTILINE):
            return ""
        if paragraph.strip() and not paragraph.lstrip().startswith(("..", ">>>")):
            return " ".join(paragraph.split())
    return ""


def main() -> None:
    """Collect the training and the test pairs and write them."""
    parser = argparse.ArgumentParser(description="Collect (description, API entry) pairs.")
    parser.add_argument("--output", type=Path, default=Path("data"), help="the folder to write to")
    parser.add_argument("--words", action="store_true", help="split names into words and drop annotations and defaults")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    text_format = entry_text if arguments.words else raw_entry_text
    for split, packages in (("train", TRAIN_PACKAGES), ("test", standard_library())):
        start, survey = time.perf_counter(), Survey()
        entries = collect(packages, text_format, survey)
        write_jsonl(arguments.output / f"{split}.jsonl", entries)
        seconds = time.perf_counter() - start
        print(
            f"{split}: {len(entries)} pairs from {survey.modules} modules"
            f" ({len(survey.failed)} could not be imported) in {seconds:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
