"""Tables of a model card: settings and figures as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WIDEST = 60  # one long cell must not pad all others


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it can be read as text, too.

    Example:
        >>> print(markdown_table(["metric", "value"], [["mrr", "0.5"]]))
        | metric | value |
        | ------ | ----- |
        | mrr    | 0.5   |
    """
    widths = [min(_WIDEST, max(len(row[column]) for row in [head, *rows])) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def flattened(settings: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings with dotted names.

    Example:
        >>> list(flattened({"loss": {"type": "TripletLoss", "margin": 0.2}}))
        [('loss.type', 'TripletLoss'), ('loss.margin', 0.2)]
    """
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(value: Any) -> str:
    r"""A value as text in a table's cell; numbers in three to four digits.

    Example:
        >>> plain(0.98765), plain(12345), plain(None), plain("a|b")
        ('0.988', '12,345', '–', 'a\\|b')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _number(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def code(value: Any) -> str:
    r"""A value as code in a table's cell, as a config file or a command says it.

    Example:
        >>> code(2e-05), code(True), code("a|b"), code("`"), code("query: ")
        ('`2e-05`', '`true`', '`a\\|b`', '`` ` ``', '`"query: "`')
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if text != text.strip() or not text:  # a prompt that ends with a space, say
        text = json.dumps(text, ensure_ascii=False)
    text = text.replace("\n", " ").replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _number(value: float) -> str:
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if 0 < size < 0.001:
        return f"{value:.3g}"
    return f"{value:.{1 if size >= 100 else 2 if size >= 10 else 3}f}"
