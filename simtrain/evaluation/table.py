"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simtrain.errors import ConfigError, nearest
from simtrain.evaluation.retrieval_result import RetrievalResult


def result_table(result: RetrievalResult, names: Sequence[str]) -> str:
    """Markdown table of one result: metric, mean, interval.

    Args:
        result: The result.
        names: Metrics to show, in this order.
    """
    rows = [[name, f"{result.metrics[name]:.3f}", _interval(result.interval(name))] for name in names]
    return markdown_table(["metric", "value", f"{result.confidence:.0%} interval"], rows)


def results_table(results: Mapping[str, RetrievalResult], names: Sequence[str], first: str = "test set") -> str:
    """Markdown table of several results: a line for each, a column for each metric, with intervals.

    Args:
        results: Result of each test set, or of each model, by what it is called.
        names: Metrics to show, in this order.
        first: Head of the first column.

    Raises:
        ConfigError: A result has no such metric.

    Example:
        >>> import torch
        >>> print(results_table({"faq": RetrievalResult({"mrr": torch.tensor([1.0, 1.0])}, 2)}, ["mrr"]))
        | test set | queries | mrr                  |
        | -------- | ------- | -------------------- |
        | faq      | 2       | 1.000 [1.000, 1.000] |
    """
    rows = []
    for called, result in results.items():
        for name in names:
            if name not in result.metrics:
                raise ConfigError(f"{called} has no metric {name!r}; {nearest(name, result.metrics)}")
        figures = [f"{result.metrics[name]:.3f} {_interval(result.interval(name))}" for name in names]
        rows.append([called, f"{result.n_queries:,}", *figures])
    return markdown_table([first, "queries", *names], rows)


def comparison_table(before: RetrievalResult, after: RetrievalResult, names: Sequence[str]) -> str:
    """Markdown table of two results over the same queries, with the paired test of their difference.

    Args:
        before: The result to compare with.
        after: The other result.
        names: Metrics to show, in this order.
    """
    rows = []
    for name in names:
        test = before.compare(after, name)
        rows.append(
            [
                name,
                f"{before.metrics[name]:.3f} {_interval(before.interval(name))}",
                f"{after.metrics[name]:.3f} {_interval(after.interval(name))}",
                f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}]",
                f"{test.p_value:.4f}",
            ]
        )
    return markdown_table(["metric", "before", "after", "difference", "p"], rows)


def _interval(bounds: tuple[float, float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table whose columns line up as text, too.

    Example:
        >>> print(markdown_table(["metric", "value"], [["mrr", "0.5"]]))
        | metric | value |
        | ------ | ----- |
        | mrr    | 0.5   |
    """
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
