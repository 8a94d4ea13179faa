"""What an evaluator computes over a whole data set: results are collected batch by batch, and measured at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from simtrain.errors import DataError
from simtrain.evaluation.process_group import by_first_process, gathered_objects


class Numbered(NamedTuple):
    """A result that knows which sample it is of, so that one that several processes have counts once.

    Attributes:
        number: Number of the sample, any that can be sorted.
        value: The result.
    """

    number: Any
    value: Any


class BaseMetric:
    """A metric over a data set.

    A subclass implements :meth:`process`, which adds to :attr:`results`, one entry a sample, and
    :meth:`compute_metrics`. Several processes collect a part each; the first one measures all of it, without the
    samples that a distributed sampler repeats, and tells the others.

    Args:
        prefix: Put before the figures' names, with a slash.

    Attributes:
        results: What was collected since the last evaluation, one entry a sample, or :class:`Numbered` ones.
        dataset_meta: What is known of the data set as a whole; set by the loop.
        state: What a runner tells of itself (epoch, step, device), where there is one.

    Example:
        >>> class Accuracy(BaseMetric):
        ...     def process(self, data_batch, data_samples):
        ...         self.results += [float(guess == truth) for guess, truth in zip(data_samples, data_batch)]
        ...     def compute_metrics(self, results):
        ...         return {"accuracy": sum(results) / len(results)}
        >>> metric = Accuracy()
        >>> metric.process(data_batch=[1, 2], data_samples=[1, 1])
        >>> metric.evaluate(size=2)
        {'accuracy': 0.5}
    """

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = prefix
        self.results: list[Any] = []
        self.dataset_meta: Mapping[str, Any] | None = None
        self.state: Any = None

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Take a batch.

        Args:
            data_batch: What the loader gave.
            data_samples: What the model's step returned for it: a dict, or a list of results.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `process`")

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Measure the results of the whole data set.

        Returns:
            Name → figure.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `compute_metrics`")

    def evaluate(self, size: int) -> dict[str, float]:
        """Measure what was collected, and forget it.

        Args:
            size: Samples in the data set. Beyond so many, results of several processes are repetitions; 0 where it
                is not known.

        Returns:
            Name → figure, the same in all processes.

        Raises:
            DataError: There are no results, or those of several processes are not one a sample.
        """
        parts = gathered_objects(self.results)
        self.reset()
        name = type(self).__name__
        return self._named(by_first_process(lambda: self.compute_metrics(_one_a_sample(parts or [], size, name))))

    def reset(self) -> None:
        """Forget what was collected."""
        self.results = []

    def _named(self, figures: Mapping[str, float]) -> dict[str, float]:
        return {f"{self.prefix}/{name}" if self.prefix else name: value for name, value in figures.items()}


def _one_a_sample(parts: Sequence[list[Any]], size: int, name: str) -> list[Any]:
    joined = [result for part in parts for result in part]
    if not joined:
        raise DataError(f"{name} has no results to measure: process() was called with none since the last evaluation")
    if all(isinstance(result, Numbered) for result in joined):
        by_number = {result.number: result.value for result in reversed(joined)}
        return [by_number[number] for number in sorted(by_number)]
    if len(parts) == 1 or size < 1 or len(joined) == size:
        return joined
    if len(joined) < size:
        raise DataError(
            f"{name} collected {len(joined)} results of {size} samples in {len(parts)} processes; add one result a "
            f"sample, so that what a distributed sampler repeats can be told"
        )
    # A distributed sampler deals samples out in turn, and repeats the first ones at the end.
    longest = max(len(part) for part in parts)
    in_turn = [part[place] for place in range(longest) for part in parts if place < len(part)]
    return in_turn[:size]
