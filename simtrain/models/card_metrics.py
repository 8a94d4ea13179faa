"""The figures of a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simtrain.errors import ConfigError
from simtrain.models.card_table import markdown_table, plain

_TITLES = {
    "n_queries": "queries",
    "n_gallery": "items searched",
    "n_queries_without_match": "queries without a match",
}

Figures = dict[str, str]


def metrics_section(metrics: Mapping[str, Any]) -> str:
    """Markdown of figures: one column, or one for each model or moment that is compared.

    Args:
        metrics: Name → number, or ``{"value": number, "interval": [low, high]}``; or the ``as_dict()`` of a
            :class:`~simtrain.evaluation.RetrievalResult`; or one of these for each column, as ``{"before": ...,
            "after": ...}``, without those that are None.

    Raises:
        ConfigError: It is none of these.

    Example:
        >>> print(metrics_section({"mrr": {"value": 0.41237, "interval": [0.40, 0.42]}}))
        | metric | value                |
        | ------ | -------------------- |
        | mrr    | 0.412 [0.400, 0.420] |
        <BLANKLINE>
        In brackets: the interval of the figure before them.
    """
    columns = {str(title): _result(title, one) for title, one in _columns(metrics).items()}
    named: dict[str, Figures] = {title: _figures(one) for title, one in columns.items()}
    names = list(dict.fromkeys(name for figures in named.values() for name in figures))
    rows = [[plain(name), *(figures.get(name, "–") for figures in named.values())] for name in names]
    table = markdown_table(["metric", *map(plain, named)], rows)
    levels = sorted({one["confidence"] for one in columns.values() if one.get("intervals") and one.get("confidence")})
    has_brackets = any("[" in figure for figures in named.values() for figure in figures.values())
    level = f"the {levels[0]:.0%} interval" if len(levels) == 1 else "the interval"
    return f"{table}\n\nIn brackets: {level} of the figure before them." if has_brackets else table


def _columns(metrics: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: _as_dict(value) for key, value in metrics.items() if value is not None}
    has_columns = given and all(isinstance(one, Mapping) and "value" not in one for one in given.values())
    return given if has_columns and "metrics" not in given else {"value": given}


def _result(title: str, one: Mapping[str, Any]) -> dict[str, Any]:
    """Figures as ``RetrievalResult.as_dict`` gives them."""
    if isinstance(one.get("metrics"), Mapping):
        return dict(one)
    for name, figure in one.items():
        if isinstance(figure, Mapping) and "value" not in figure:
            raise ConfigError(
                f"the card's metric {name!r} of {title!r} must be a number or {{'value': NUMBER, 'interval': [LOW, "
                f"HIGH]}}, got {figure!r:.80}"
            )
    cells = {name: figure if isinstance(figure, Mapping) else {"value": figure} for name, figure in one.items()}
    intervals = {name: cell["interval"] for name, cell in cells.items() if cell.get("interval")}
    return {"metrics": {name: cell["value"] for name, cell in cells.items()}, "intervals": intervals}


def _figures(result: Mapping[str, Any]) -> Figures:
    intervals = result.get("intervals") or {}
    figures = {str(name): plain(value) + _brackets(intervals.get(name)) for name, value in result["metrics"].items()}
    counts = {key: value for key, value in result.items() if key not in ("metrics", "intervals", "confidence")}
    return {**figures, **{_TITLES.get(key, str(key)): plain(value) for key, value in counts.items()}}


def _brackets(interval: Any) -> str:
    return "" if interval is None else f" [{', '.join(plain(bound) for bound in interval)}]"


def _as_dict(value: Any) -> Any:
    return value.as_dict() if hasattr(value, "as_dict") else value
