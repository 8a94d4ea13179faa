"""The model card: a README.md in a saved model's folder that says what it is and how to use it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from torch import nn

from simtrain.errors import ConfigError, nearest
from simtrain.models.card_file import MARK
from simtrain.models.card_metrics import metrics_section
from simtrain.models.card_table import code, flattened, markdown_table, plain
from simtrain.models.card_usage import usage_code

_SECTIONS = ("description", "data", "metrics", "config")
_TOLD_ELSEWHERE = ("embedding_size", "input_embedding_size", "trainable")
_DIGEST = re.compile(r"[0-9a-f]{32,}")

Card = str | Mapping[str, Any]


def model_card(
    name: str,
    encoders: Mapping[str, nn.Module],
    head: nn.Module,
    has_sides: bool = False,
    card: Card | None = None,
) -> str:
    """Markdown of a model card. It is the same for the same model and words: there is no date in it.

    Args:
        name: Name of the model's folder.
        encoders: Encoders by name.
        head: The head.
        has_sides: Whether queries and documents are encoded differently.
        card: What only the user knows, see :func:`checked_card`.

    Raises:
        ConfigError: ``card`` is wrong.

    Example:
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> text = model_card("faq", {"default": PrecomputedEncoder(2)}, EmptyHead(2), card={"data": {"pairs": 8210}})
        >>> [line for line in text.splitlines() if line.startswith("#")]
        ['# faq', '## What it is made of', '## How to use it', '## Data']
    """
    given = checked_card(card)
    sections = {
        "What it is made of": _parts(encoders, head, has_sides),
        "How to use it": f"```python\n{usage_code(name, encoders, head, has_sides)}\n```",
        "Data": _settings(given.get("data"), "data", plain),
        "Metrics": _metrics(given.get("metrics")),
        "Config": _settings(given.get("config"), "setting", code),
    }
    about = given.get("description") or ""
    size = int(head.output_size)  # type: ignore[arg-type]
    made = (
        f"A similarity model of simtrain {_version()}: items in, vectors of {size} dimensions out, to be compared by "
    )
    text = [f"# {plain(name)}", MARK, about.strip(), f"{made}cosine similarity."]
    text += [f"## {title}\n\n{body}" for title, body in sections.items() if body]
    return "\n\n".join(part for part in text if part) + "\n"


def checked_card(card: Card | None) -> dict[str, Any]:
    """What a user says of his model, by section.

    Args:
        card: A description, or ``{"description": text, "data": {...}, "metrics": {...}, "config": {...}}``, each of
            which may be left out. ``data`` and ``config`` are settings of any depth, or a text; for ``metrics`` see
            :func:`~simtrain.models.card_metrics.metrics_section`. Texts are Markdown.

    Raises:
        ConfigError: It is neither, or a section is unknown or of another kind.

    Example:
        >>> checked_card("Finds shoes.")
        {'description': 'Finds shoes.'}
    """
    if card is None or isinstance(card, str):
        return {} if card is None else {"description": card}
    if not isinstance(card, Mapping):
        raise ConfigError(f"card must be a text or {{'data': {{...}}, 'metrics': {{...}}, ...}}, got {card!r:.80}")
    for section, content in card.items():
        if section not in _SECTIONS:
            raise ConfigError(f"a model card has no section {section!r}; {nearest(str(section), _SECTIONS)}")
        kinds = str if section == "description" else (str, Mapping)
        if content is not None and not isinstance(content, kinds) and not hasattr(content, "as_dict"):
            accepted = "a text" if section == "description" else "a text or settings by name"
            raise ConfigError(f"the card's section {section!r} must be {accepted}, got {content!r:.80}")
    return dict(card)


def _parts(encoders: Mapping[str, Any], head: Any, has_sides: bool) -> str:
    rows = [
        [
            f"encoder {code(name)}",
            code(type(encoder).__name__),
            str(int(encoder.embedding_size)),
            "yes" if encoder.trainable else "no, frozen",
            _worded(getattr(encoder, "get_config_dict", dict)()),
        ]
        for name, encoder in encoders.items()
    ]
    trained = "yes" if any(True for _ in head.parameters()) else "nothing to train"
    size = getattr(head, "input_embedding_size", None)
    sizes = f"{head.output_size}" if size is None else f"{size} → {head.output_size}"
    rows.append(["head", code(type(head).__name__), sizes, trained, _worded(_head_config(head))])
    table = markdown_table(["part", "class", "dimensions", "trained", "settings"], rows)
    joined = "The encoders' vectors are joined in this order, and go through the head." if len(encoders) > 1 else ""
    sides = "Queries and documents are encoded differently." if has_sides else ""
    return "\n\n".join(part for part in (table, joined, sides) if part)


def _head_config(head: Any) -> dict[str, Any]:
    try:
        return dict(head.get_config_dict()) if hasattr(head, "get_config_dict") else {}
    except ConfigError:  # whether a head that no config describes can be saved is not for the card to say
        return {}


def _worded(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in _told(config)) or "–"


def _told(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in flattened(config):
        # Digests tell a reader nothing, and what is not set has no place.
        if name.split(".")[-1] in _TOLD_ELSEWHERE or value in (None, "", {}, []):
            continue
        if isinstance(value, str) and _DIGEST.fullmatch(value):
            continue
        if isinstance(value, list) and all(isinstance(one, Mapping) and "type" in one for one in value):
            value = " → ".join(str(one["type"]) for one in value)
        yield name, code(value if len(str(value)) <= 120 else f"{str(value)[:120]}…")


def _settings(given: Any, title: str, worded: Any) -> str:
    if not isinstance(given, Mapping):
        return str(given or "").strip()
    rows = [[plain(name), worded(value)] for name, value in flattened(given)]
    return markdown_table([title, "value"], rows) if rows else ""


def _metrics(given: Any) -> str:
    if given is None or isinstance(given, str):
        return (given or "").strip()
    figures = given.as_dict() if hasattr(given, "as_dict") else given
    return metrics_section(figures) if figures else ""


def _version() -> str:
    try:
        return metadata.version("simtrain")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"
