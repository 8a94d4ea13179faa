"""How well similarity tells the matching pairs of training and validation batches from others.

Every two items of a batch are a pair. Their cosines are counted in 65,537 bins, so that memory is constant and sums
over processes are exact; figures are within one bin (3e-5 of cosine) of those of
:func:`~simtrain.metrics.pair_auc` and :func:`~simtrain.metrics.fnmr_at_fmr`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from simtrain.metrics.batch import batch_relevance
from simtrain.metrics.batch_metric import BatchMetric
from simtrain.metrics.similarities import full_precision
from simtrain.metrics.vectors import as_vectors, unit_rows
from simtrain.metrics.verification import ErrorRates, accepted_count, checked_rate
from simtrain.registry import metrics

# -1, 0, 1, halves, quarters and so on lie in the middle of a bin: rounding does not part ties of these.
STEPS = 2**15
BINS = 2 * STEPS + 1
CHUNK = 256


class PairMetric(BatchMetric):
    """Counts of the cosines of matching and of other pairs; the base of this module's metrics.

    Args:
        **kwargs: Passed on to ``torchmetrics.Metric``.
    """

    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    counts: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        #: Of matching pairs (row 1) and others (row 0), by cosine, ascending.
        self.add_state("counts", default=torch.zeros(2, BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        embeddings: Tensor,
        groups: Tensor | None = None,
        pairs: Tensor | None = None,
        labels: Tensor | None = None,
        subgroups: Tensor | None = None,
    ) -> None:
        """Count the pairs of a batch; see :meth:`~simtrain.metrics.batch_metric.BatchMetric.update`."""
        rows = unit_rows(as_vectors(embeddings, "embeddings"))
        everything = torch.arange(len(rows), device=rows.device)
        relevance = batch_relevance(len(rows), groups, pairs, labels, subgroups, device=rows.device)
        for some in torch.split(everything, CHUNK):
            later = everything > some[:, None]
            matches = relevance.contains(some, everything.expand(len(some), -1))[later]
            with full_precision(rows.device.type):
                cosines = (rows[some] @ rows.T)[later]
            bins = ((cosines.double() + 1.0) * STEPS).round_().long().clamp_(0, BINS - 1)
            counts = torch.bincount(bins + matches * BINS, minlength=2 * BINS).view(2, BINS)
            self.counts += counts.to(self.counts.device)

    def _sums(self) -> tuple[Tensor, Tensor]:
        """Counts of others and of matching pairs, float64 on the CPU."""
        others, matching = self.counts.cpu().double()
        return others, matching


@metrics.register_module()
class PairAUC(PairMetric):
    """Area under the ROC curve of the cosines of pairs; 0.0 as long as there is no matching or no other pair.

    Args:
        **kwargs: Passed on to ``torchmetrics.Metric``.

    Example:
        >>> metric = PairAUC()
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), groups=torch.tensor([5, 5, 6]))
        >>> metric.compute()
        tensor(1.)
    """

    higher_is_better = True

    def compute(self) -> Float[Tensor, ""]:
        """The area, float32; pairs in one bin count half."""
        others, matching = self._sums()
        below = others.cumsum(0) - others / 2
        n_combinations = others.sum() * matching.sum()
        return ((matching @ below) / n_combinations.clamp(min=1)).float().to(self.counts.device)


@metrics.register_module()
class PairFNMR(PairMetric):
    """Share of the matching pairs refused at a threshold on cosine that accepts at most ``fmr`` of the others.

    One minus it is TAR@FAR. 1.0 as long as there is no matching or no other pair.

    Args:
        fmr: Allowed share of other pairs that are accepted, from 0 to 1.
        **kwargs: Passed on to ``torchmetrics.Metric``.

    Raises:
        ConfigError: ``fmr`` is not from 0 to 1.

    Example:
        >>> metric = PairFNMR(fmr=0.1)
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), groups=torch.tensor([5, 5, 6]))
        >>> metric.compute()
        tensor(0.)
    """

    higher_is_better = False

    def __init__(self, fmr: float | int = 0.001, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fmr = checked_rate("fmr", fmr)

    def compute(self) -> Float[Tensor, ""]:
        """The rate, float32."""
        return torch.tensor(self._rates().fnmr, device=self.counts.device)

    def rates(self) -> ErrorRates:
        """Both rates, the threshold on the cosine, and TAR@FAR (``.tar``), over all processes.

        Example:
            >>> metric = PairFNMR(fmr=0.1)
            >>> metric.update(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), groups=torch.tensor([5, 5, 6]))
            >>> metric.rates()
            ErrorRates(fnmr=1.0, fmr=0.0, threshold=0.80...)
        """
        with self.sync_context(should_sync=self.sync_on_compute):
            return self._rates()

    def _rates(self) -> ErrorRates:
        others, matching = self._sums()
        if not others.sum() or not matching.sum():
            return ErrorRates(1.0, 0.0, math.inf)
        # Whole bins from the top are accepted while they hold no more others than allowed.
        accepted = others.flip(0).cumsum(0) <= accepted_count(int(others.sum()), self.fmr)
        refused = BINS - int(accepted.sum())
        fnmr, fmr = matching[:refused].sum() / matching.sum(), others[refused:].sum() / others.sum()
        return ErrorRates(float(fnmr), float(fmr), (refused - 0.5) / STEPS - 1.0 if refused else -math.inf)
