"""Configs of pytorch-metric-learning's losses, and batches for them."""

import torch

from simtrain.losses.pml_names import pml_loss_names

SIZE, N_GROUPS, BATCH = 8, 4, 12


# Words without a default.
CLASSES = {"num_classes": N_GROUPS, "embedding_size": SIZE}


BY_CLASSES = (
    "ArcFaceLoss CosFaceLoss LargeMarginSoftmaxLoss NormalizedSoftmaxLoss ProxyAnchorLoss ProxyNCALoss SoftTripleLoss "
    "SphereFaceLoss SubCenterArcFaceLoss"
)


WORDS = {
    **dict.fromkeys([f"pml.{name}" for name in BY_CLASSES.split(" ")], CLASSES),
    "pml.P2SGradLoss": {"num_classes": N_GROUPS, "descriptors_dim": SIZE},
    "pml.ManifoldLoss": {"l": SIZE, "K": 3},
    "pml.HistogramLoss": {"n_bins": 10},
    "pml.RankedListLoss": {"margin": 0.4, "Tn": 0},
    "pml.MarginLoss": {"num_classes": N_GROUPS, "learn_beta": True, "nu": 0.1},
    "pml.SelfSupervisedLoss": {"loss": {"type": "pml.NTXentLoss"}},
    "pml.MultipleLosses": {
        "losses": [{"type": "pml.TripletMarginLoss"}, {"type": "pml.ContrastiveLoss", "neg_margin": 0.5}],
        "miners": [{"type": "pml.BatchHardMiner"}, None],
        "weights": [1.0, 0.5],
    },
}


NAMES = pml_loss_names()


def config_of(name):
    return {"type": name, **WORDS.get(name, {})}


def draw(seed, n=BATCH, dtype=torch.float64):
    return torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def groups_of(n=BATCH):
    return torch.arange(n) % N_GROUPS
