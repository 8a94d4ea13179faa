"""Drawn shapes: a vision backbone, or a head on a cached one, finds shapes of classes that it was not trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from simtrain import CacheConfig, Runner, TrainableModel, evaluate
from simtrain.data import GroupSimilarityDataLoader, PKSampler, read_image_folder
from simtrain.encoders import VisionEncoder
from simtrain.heads import EmptyHead, LinearHead
from simtrain.losses import SupConLoss

SIZE, PER_CLASS = 24, 12
TRAIN, TEST = range(3, 13, 2), range(4, 12, 2)


def draw(corners: int, random: np.random.Generator) -> Image.Image:
    """A star with so many corners, of any colour, turned and placed at random: only the shape tells the class."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(random.integers(0, 100, 3).tolist()))
    turn, radius = random.uniform(0, 2 * np.pi), random.uniform(8, 10)
    angles = turn + np.arange(2 * corners) * np.pi / corners
    reach = np.where(np.arange(2 * corners) % 2, 0.4 * radius, radius)
    center = SIZE / 2 + random.uniform(-1, 1, 2)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None] + center
    ImageDraw.Draw(image).polygon([tuple(point) for point in points], tuple(random.integers(150, 255, 3).tolist()))
    return image


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, random = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for part, classes in (("train", TRAIN), ("test", TEST)):
        for corners in classes:
            folder = root / part / f"star{corners}"
            folder.mkdir(parents=True)
            for number in range(PER_CLASS):
                draw(corners, random).save(folder / f"{number}.png")
    return {part: read_image_folder(root / part) for part in ("train", "test")}


def backbone() -> nn.Module:
    torch.manual_seed(0)
    layers = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


def loader(data):
    sampler = PKSampler(data, batch_size=20, per_group=4, seed=0)
    return GroupSimilarityDataLoader(data, batch_size=20, sampler=sampler)


def make_model(trainable: bool, cache: CacheConfig | None) -> TrainableModel:
    encoder = VisionEncoder(backbone(), image_size=SIZE, transform={"crop": 1.0}, trainable=trainable)
    torch.manual_seed(0)
    return TrainableModel(
        encoders=encoder,
        head=EmptyHead if trainable else lambda size: LinearHead(size, 16),
        loss=SupConLoss(temperature=0.2),
        cache=cache,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
    )


def test_a_trained_backbone_finds_shapes_of_unseen_classes(folders):
    model = make_model(True, None)
    before = evaluate(model.model, folders["test"]).metrics["map@r"]
    Runner(model, 12, loader(folders["train"])).fit()
    after = evaluate(model.model, folders["test"]).metrics["map@r"]
    assert after > before + 0.05


class Forwards(VisionEncoder):
    """Counts the images that go through the backbone."""

    n_images = 0
    cache_ignores = frozenset({"n_images"})

    def forward(self, batch):
        self.n_images += len(batch)
        return super().forward(batch)


def test_a_frozen_backbone_runs_once_and_trains_a_head_as_without_a_cache(folders):
    states, counts = [], []
    for cache in (CacheConfig("cpu"), None):
        encoder = Forwards(backbone(), image_size=SIZE)
        torch.manual_seed(0)
        model = TrainableModel(
            encoders=encoder,
            head=lambda size: LinearHead(size, 16),
            loss=SupConLoss(),
            cache=cache,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        )
        Runner(model, 3, loader(folders["train"])).fit()
        states.append(model.model.head.state_dict())
        counts.append(encoder.n_images)
    n = len(folders["train"])
    assert counts == [n, 3 * n]
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value, rtol=1e-4, atol=1e-5)
