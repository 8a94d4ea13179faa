"""What a command prints: text for people, or one JSON document for programs."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from simtrain.errors import ConfigError


@contextmanager
def answering(as_json: bool) -> Iterator[Callable[[Any, str], None]]:
    """Keep stdout for the answer where it is to be JSON: what is printed meanwhile goes to stderr.

    Args:
        as_json: Whether the answer is a JSON document.

    Yields:
        A function of the answer's values and of the same as text, which prints one of them. Only the first of a run's
        processes does.

    Example:
        >>> with answering(as_json=True) as answer:
        ...     answer({"mrr": 0.5, "map": float("nan")}, "mrr: 0.5")
        {
          "mrr": 0.5,
          "map": null
        }
    """
    stdout = sys.stdout

    def answer(values: Any, text: str) -> None:
        if int(os.environ.get("LOCAL_RANK") or 0) == 0:
            print(json.dumps(plain_json(values), indent=2) if as_json else text, file=stdout, flush=True)

    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        yield answer


def plain_json(value: Any) -> Any:
    """Values that JSON has: paths as texts, and null for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(key): plain_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def check_parent(output: Path | None) -> None:
    """Raise a :class:`ConfigError` where a file cannot be written because its folder is missing."""
    if output is not None and not output.parent.is_dir():
        raise ConfigError(f"cannot write {str(output)!r}: there is no folder {str(output.parent)!r}; make it first")
