"""The losses that are measured against a memory, and pytorch-metric-learning's (PML) beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytorch_metric_learning import distances, losses, miners, reducers

from simtrain.losses import (
    CircleLoss,
    FastAPLoss,
    GroupContrastiveLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    SupConLoss,
    TripletLoss,
)
from simtrain.losses.row_loss import RowLoss

#: The losses whose floors are goals; and those where PML enumerates.
MAIN = ["contrastive", "triplet hard", "supcon", "multi-similarity"]
ENUMERATED = ["triplet all", "nt-xent"]


def cosine() -> Any:
    return distances.CosineSimilarity()


#: Name -> our loss, PML's, PML's miner, whether it picks pairs, and PML's bytes per (batch x memory) entry, roughly.
CASES: dict[str, tuple[Callable[[], RowLoss], Callable[[], Any], Callable[[], Any] | None, bool, float]] = {
    "contrastive": (
        GroupContrastiveLoss,
        lambda: losses.ContrastiveLoss(pos_margin=1, neg_margin=0.5, distance=cosine()),
        None,
        True,
        50,
    ),
    "triplet hard": (
        lambda: TripletLoss(0.2),
        lambda: losses.TripletMarginLoss(0.2, distance=cosine(), reducer=reducers.MeanReducer()),
        lambda: miners.BatchHardMiner(distance=cosine()),
        True,
        50,
    ),
    "triplet all": (
        lambda: TripletLoss(0.2, mining="all"),
        lambda: losses.TripletMarginLoss(0.2, distance=cosine()),
        None,
        False,
        100 * 2,  # times the positives of an anchor, which grow with the memory: see `peer_bytes`
    ),
    "supcon": (lambda: SupConLoss(0.1), lambda: losses.SupConLoss(temperature=0.1), None, False, 60),
    "multi-similarity": (
        lambda: MultiSimilarityLoss(lambda_=0.5),
        lambda: losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
        lambda: miners.MultiSimilarityMiner(epsilon=0.1),
        False,
        80,
    ),
    "circle": (
        lambda: CircleLoss(0.4, 80),
        lambda: losses.CircleLoss(m=0.4, gamma=80, distance=cosine()),
        None,
        False,
        80,
    ),
    "fast-ap": (FastAPLoss, lambda: losses.FastAPLoss(num_bins=10), None, False, 400),
    "nt-xent": (lambda: NTXentLoss(0.1), lambda: losses.NTXentLoss(temperature=0.1), None, False, 300),
}
