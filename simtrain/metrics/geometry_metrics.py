"""How the embeddings of training and validation batches lie in space."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain.errors import ConfigError, DataError
from simtrain.metrics.batch import batch_relevance
from simtrain.metrics.batch_metric import BatchMetric
from simtrain.metrics.geometry import rank_of_products, squared_gaps, sum_of_potentials
from simtrain.metrics.retrieval import checked_k
from simtrain.metrics.vectors import as_vectors, unit_rows
from simtrain.registry import metrics


class _MeanOverPairs(BatchMetric):
    higher_is_better = False
    total: Tensor
    n_pairs: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("n_pairs", default=torch.tensor(0), dist_reduce_fx="sum")

    def _mean(self) -> float:
        return float(self.total) / int(self.n_pairs) if int(self.n_pairs) else 0.0


@metrics.register_module()
class Alignment(_MeanOverPairs):
    """Mean distance of the matching items of a batch on the unit sphere, to the power of ``alpha``.

    See :func:`~simtrain.metrics.alignment`. 0.0 as long as no two items matched.

    Args:
        alpha: Exponent above 0.
        **kwargs: Passed on to ``torchmetrics.Metric``.

    Raises:
        ConfigError: ``alpha`` is not above 0.

    Example:
        >>> metric = Alignment()
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), groups=torch.tensor([5, 5, 6]))
        >>> metric.compute()
        tensor(2.)
    """

    plot_lower_bound = 0.0

    def __init__(self, alpha: float | int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not alpha > 0:
            raise ConfigError(f"alpha is a number above 0, got {alpha!r}")
        self.alpha = float(alpha)

    def update(
        self,
        embeddings: Tensor,
        groups: Tensor | None = None,
        pairs: Tensor | None = None,
        labels: Tensor | None = None,
        subgroups: Tensor | None = None,
    ) -> None:
        """Add the matching pairs of a batch; see :meth:`~simtrain.metrics.batch_metric.BatchMetric.update`."""
        rows = unit_rows(as_vectors(embeddings, "embeddings"))
        everything = torch.arange(len(rows), device=rows.device)
        relevance = batch_relevance(len(rows), groups, pairs, labels, subgroups, device=rows.device)
        for some in torch.split(everything, 64):
            columns = relevance.columns(some)
            place, column = (columns > some[:, None]).nonzero(as_tuple=True)
            apart = squared_gaps(rows[some[place]], rows[columns[place, column]])
            self.total += apart.pow(self.alpha / 2).sum().to(self.total.device)
            self.n_pairs += len(place)

    def compute(self) -> Float[Tensor, ""]:
        """The mean over all matching pairs seen, float32."""
        return torch.tensor(self._mean(), device=self.total.device)


@metrics.register_module()
class Uniformity(_MeanOverPairs):
    """Logarithm of the mean of ``exp(-t d^2)`` over the pairs of each batch on the unit sphere; lower is more spread.

    See :func:`~simtrain.metrics.uniformity`. 0.0 as long as there was no pair. Targets are not needed.

    Args:
        t: Factor above 0.
        **kwargs: Passed on to ``torchmetrics.Metric``.

    Raises:
        ConfigError: ``t`` is not above 0.

    Example:
        >>> metric = Uniformity()
        >>> metric.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> metric.compute()
        tensor(-8.)
    """

    plot_upper_bound = 0.0

    def __init__(self, t: float | int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not t > 0:
            raise ConfigError(f"t is a number above 0, got {t!r}")
        self.t = float(t)

    def update(
        self,
        embeddings: Tensor,
        groups: Tensor | None = None,
        pairs: Tensor | None = None,
        labels: Tensor | None = None,
        subgroups: Tensor | None = None,
    ) -> None:
        """Add all pairs of a batch; the targets do not count."""
        rows = unit_rows(as_vectors(embeddings, "embeddings"))
        self.total += sum_of_potentials(rows, self.t).to(self.total.device)
        self.n_pairs += len(rows) * (len(rows) - 1)

    def compute(self) -> Float[Tensor, ""]:
        """The logarithm of the mean, float32."""
        if not int(self.n_pairs):
            return torch.zeros((), device=self.total.device)
        return torch.tensor(math.log(self._mean()) if self._mean() > 0.0 else -math.inf, device=self.total.device)


@metrics.register_module()
class EffectiveRank(BatchMetric):
    """How many dimensions the embeddings of all batches use, from 1 (collapsed) to ``embedding_size``.

    See :func:`~simtrain.metrics.effective_rank`. 0.0 before any embedding was seen. Targets are not needed.

    Args:
        embedding_size: Dimensions of the embeddings; the state has its square.
        **kwargs: Passed on to ``torchmetrics.Metric``.

    Raises:
        ConfigError: ``embedding_size`` is not a positive integer.

    Example:
        >>> metric = EffectiveRank(embedding_size=4)
        >>> metric.update(torch.eye(4))
        >>> metric.compute()
        tensor(4.)
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    products: Tensor

    def __init__(self, embedding_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding_size = checked_k(embedding_size, "embedding_size")
        empty = torch.zeros(embedding_size, embedding_size, dtype=torch.float64)
        self.add_state("products", default=empty, dist_reduce_fx="sum")

    def update(
        self,
        embeddings: Tensor,
        groups: Tensor | None = None,
        pairs: Tensor | None = None,
        labels: Tensor | None = None,
        subgroups: Tensor | None = None,
    ) -> None:
        """Add the embeddings of a batch; the targets do not count."""
        rows = as_vectors(embeddings, "embeddings").to(self.products.device).double()
        if rows.shape[1] != self.embedding_size:
            raise DataError(f"embeddings have {rows.shape[1]} dimensions, not embedding_size={self.embedding_size}")
        self.products += rows.T @ rows

    def compute(self) -> Float[Tensor, ""]:
        """The rank, float32."""
        return torch.tensor(rank_of_products(self.products), device=self.products.device)
