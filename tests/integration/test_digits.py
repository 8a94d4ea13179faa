"""Images of handwritten digits: an encoder trained on some images brings those of one digit together in others."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from simtrain import Runner, TrainableModel, XbmConfig, evaluate
from simtrain.data import GroupSimilarityDataLoader, SimilarityGroupSample
from simtrain.encoders import ModuleEncoder
from simtrain.heads import EmptyHead
from simtrain.losses import SupConLoss, TripletLoss


@pytest.fixture(scope="module")
def digits() -> dict[str, list[SimilarityGroupSample]]:
    images, labels = load_digits(return_X_y=True)
    samples = [
        SimilarityGroupSample(torch.tensor(image, dtype=torch.float32) / 16, int(label))
        for image, label in zip(images, labels, strict=True)
    ]
    # The data set is ordered by writer: its later images are by people whom the first ones do not show.
    return {"seen": samples[:900], "unseen": samples[900:]}


@pytest.mark.parametrize(
    ("loss", "xbm"),
    [
        (SupConLoss(temperature=0.2), None),
        (TripletLoss(margin=0.3, mining="semi_hard"), None),
        (TripletLoss(margin=0.3, mining="hard"), XbmConfig(buffer_size=512, start_iteration=20)),
    ],
)
def test_training_helps_on_unseen_images_by_other_writers(digits, loss, xbm):
    torch.manual_seed(0)
    encoder = ModuleEncoder(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32)), 32, trainable=True)
    model = TrainableModel(
        encoders=encoder, head=EmptyHead, loss=loss, xbm=xbm, optimizer=lambda p: torch.optim.Adam(p, lr=2e-3)
    )
    before = evaluate(model.model, digits["unseen"])
    loader = GroupSimilarityDataLoader(digits["seen"], batch_size=128, shuffle=True)
    Runner(model, epochs=10, train_data_loader=loader).fit()
    after = evaluate(model.model, digits["unseen"])
    assert after.metrics["map@r"] > before.metrics["map@r"] + 0.1
