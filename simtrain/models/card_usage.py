"""The lines of a model card that show how to load and use the model."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from simtrain import registry
from simtrain.encoders import (
    ModuleEncoder,
    NgramEncoder,
    PrecomputedEncoder,
    SentenceTransformerEncoder,
    SwitchEncoder,
    TransformerEncoder,
    VisionEncoder,
)
from simtrain.encoders.saved_classes import type_name
from simtrain.heads.nested_heads import is_head

_TEXTS = '["a red shoe", "trousers of blue linen"]'
_IMAGES = "[torch.zeros(3, 224, 224, dtype=torch.uint8)]  # or PIL images, paths, bytes of files"
_UNKNOWN = "[]  # a list of what the encoders take"


def usage_code(name: str, encoders: Mapping[str, nn.Module], head: nn.Module, has_sides: bool) -> str:
    """Python lines that load the model from the folder ``name`` and use it.

    Args:
        name: The folder.
        encoders: Encoders by name.
        head: The head.
        has_sides: Whether queries and documents are encoded differently.
    """
    items = _example_items(encoders)
    classes = _classes(encoders, head)
    imports = ["import torch"] if "torch." in items else []
    own, words = [cls for cls, is_registered in classes if not is_registered], ""
    if own:
        words = f", allow=[{', '.join(dict.fromkeys(cls.__name__ for cls in own))}]"
    build = []
    built = _built_by_the_user(encoders)
    if built:
        words += ", encoders=built"
        build = [f"built = {built}  # made as for training; the saved weights are read into them"]
    lines = [*imports, "from simtrain import SimilarityModel", *_own_imports(cls for cls, _ in classes), "", *build]
    lines += [
        f"model = SimilarityModel.load({json.dumps(name, ensure_ascii=False)}{words})",
        f"items = {items}",
        *_calls(has_sides),
    ]
    return "\n".join(lines)


def _calls(has_sides: bool) -> list[str]:
    if not has_sides:
        return ["embeddings = model.encode(items)", "similarities = model.similarity(embeddings)"]
    return [
        "queries = model.encode_query(items)  # what is searched with",
        "documents = model.encode_document(items)  # what is searched in",
        "similarities = model.similarity(queries, documents)",
    ]


def _example_items(encoders: Mapping[str, Any]) -> str:
    examples = {_example(encoder) for encoder in encoders.values()}
    return examples.pop() if len(examples) == 1 else _UNKNOWN


def _example(encoder: Any) -> str:
    if isinstance(encoder, SwitchEncoder):
        return _example(next((encoder.options[name] for name in ("text", "image") if name in encoder.options), None))
    if isinstance(encoder, (SentenceTransformerEncoder, TransformerEncoder, NgramEncoder)):
        return _TEXTS
    if isinstance(encoder, PrecomputedEncoder):
        return f"[[1.0] * {encoder.embedding_size}]"
    return _IMAGES if isinstance(encoder, VisionEncoder) else _UNKNOWN


def _classes(encoders: Mapping[str, nn.Module], head: nn.Module) -> list[tuple[type, bool]]:
    """Class of each encoder and head, also of those inside others, and whether it is registered."""
    inside = [option for encoder in encoders.values() for option in _with_options(encoder)]
    heads = [part for part in head.modules() if part is head or is_head(part)]
    parts = [*((encoder, registry.encoders) for encoder in inside), *((part, registry.heads) for part in heads)]
    return [(type(part), type_name(part, known) in known) for part, known in parts]


def _with_options(encoder: nn.Module) -> list[nn.Module]:
    options = encoder.options.values() if isinstance(encoder, SwitchEncoder) else ()
    return [encoder, *(inside for option in options for inside in _with_options(option))]


def _own_imports(classes: Iterable[type]) -> list[str]:
    # Classes that the user has registered are known once their module is imported.
    lines = [_import_line(cls) for cls in dict.fromkeys(classes) if not cls.__module__.startswith("simtrain.")]
    return list(dict.fromkeys(lines))


def _import_line(cls: type) -> str:
    if cls.__module__ == "__main__" or "." in cls.__qualname__:
        return f"# define {cls.__name__} here as it was for training"
    return f"from {cls.__module__} import {cls.__name__}"


def _built_by_the_user(encoders: Mapping[str, nn.Module]) -> str:
    entries = []
    for name, encoder in encoders.items():
        inside = _built_by_the_user(encoder.options) if isinstance(encoder, SwitchEncoder) else ""
        if inside or _is_built_by_the_user(encoder):
            entries.append(f'"{name}": {inside or "..."}')
    return f"{{{', '.join(entries)}}}" if entries else ""


def _is_built_by_the_user(encoder: nn.Module) -> bool:
    takes = inspect.signature(type(encoder)).parameters
    return (isinstance(encoder, ModuleEncoder) and "module" in takes) or (
        isinstance(encoder, VisionEncoder) and "backbone" in takes
    )
