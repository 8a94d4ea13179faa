"""Against the real quaterion-models: its weights load here, ours there, and its parts run inside SimilarityModel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simtrain import heads
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ServableError
from simtrain.models import SimilarityModel

quaterion_heads: Any = pytest.importorskip("quaterion_models.heads")
quaterion_encoders: Any = pytest.importorskip("quaterion_models.encoders")

HEADS: list[tuple[str, dict[str, Any]]] = [
    ("EmptyHead", {}),
    ("EmptyHead", {"dropout": 0.3}),
    ("SkipConnectionHead", {}),
    ("SkipConnectionHead", {"dropout": 0.1, "skip_dropout": 0.2, "n_layers": 3}),
    ("StackedProjectionHead", {"output_sizes": [4]}),
    ("StackedProjectionHead", {"output_sizes": [7, 5, 2], "activation_fn": "gelu", "dropout": 0.1}),
]


class TinyEncoder(quaterion_encoders.Encoder):  # type: ignore[misc]
    """An encoder as its users write them: texts to counts of two letters, through a layer."""

    def __init__(self, trainable: bool = False) -> None:
        super().__init__()
        self._trainable = trainable
        self.layer = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))

    @property
    def trainable(self) -> bool:
        return self._trainable

    @property
    def embedding_size(self) -> int:
        return 3

    def get_collate_fn(self) -> Any:
        return lambda texts: torch.tensor([[float(text.count("a")), float(text.count("b"))] for text in texts])

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(batch)
        return output

    def save(self, output_path: str) -> None:
        torch.save(self.state_dict(), Path(output_path) / "weights.bin")

    @classmethod
    def load(cls, input_path: str) -> TinyEncoder:
        encoder = cls()
        encoder.load_state_dict(torch.load(Path(input_path) / "weights.bin", weights_only=True))
        return encoder


def both_heads(name: str, words: dict[str, Any]) -> tuple[heads.EncoderHead, Any]:
    torch.manual_seed(0)
    own, theirs = getattr(heads, name)(6, **words), getattr(quaterion_heads, name)(6, **words)
    with torch.no_grad():
        for parameter in (*own.parameters(), *theirs.parameters()):
            parameter.normal_()
    return own.eval(), theirs.eval()


@pytest.mark.parametrize(("name", "words"), HEADS)
def test_weights_go_both_ways_and_outputs_are_equal(name: str, words: dict[str, Any]) -> None:
    vectors = torch.randn(5, 6)
    own, theirs = both_heads(name, words)
    own.load_state_dict(theirs.state_dict())
    assert torch.equal(own(vectors), theirs(vectors))
    own, theirs = both_heads(name, words)
    theirs.load_state_dict(own.state_dict())
    assert torch.equal(own(vectors), theirs(vectors))
    assert own.output_size == theirs.output_size
    assert own.get_config_dict() == theirs.get_config_dict()


@pytest.mark.parametrize(("name", "words"), HEADS)
def test_untrained_heads_start_alike(name: str, words: dict[str, Any]) -> None:
    own, theirs = getattr(heads, name)(6, **words), getattr(quaterion_heads, name)(6, **words)
    for key, value in theirs.state_dict().items():
        assert own.state_dict()[key].shape == value.shape
        if "gates" in key:
            assert torch.equal(own.state_dict()[key], value)


def test_its_encoder_and_head_run_inside_similarity_model() -> None:
    encoder, head = TinyEncoder(), quaterion_heads.SkipConnectionHead(3)
    model = SimilarityModel(encoder, head).train()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not any(part.training for part in encoder.modules())
    texts = ["a", "abb", "aab", "b"]
    from quaterion_models import SimilarityModel as QuaterionModel

    theirs = QuaterionModel(encoder, head).encode(texts)
    np.testing.assert_allclose(model.encode(texts), theirs, atol=1e-6)
    model(model.collate(texts)).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_its_trainable_encoder_is_trained() -> None:
    encoder = TinyEncoder(trainable=True)
    model = SimilarityModel({"text": encoder}, quaterion_heads.EmptyHead(3)).train()
    model(model.collate(["a", "b"])).sum().backward()
    assert encoder.layer[0].weight.grad is not None
    assert encoder.layer[1].training


def test_a_model_of_its_parts_is_saved_without_pickles_of_heads_and_loads_if_allowed(tmp_path: Path) -> None:
    head = quaterion_heads.SkipConnectionHead(3)
    model = SimilarityModel(TinyEncoder(), head)
    model.save(tmp_path)
    with pytest.raises(ServableError, match=r"TinyEncoder', which is not registered, and no code is loaded from files"):
        SimilarityModel.load(tmp_path)
    loaded = SimilarityModel.load(tmp_path, allow=[TinyEncoder, type(head)])
    np.testing.assert_array_equal(loaded.encode(["ab", "b"]), model.encode(["ab", "b"]))
    assert sorted(file.name for file in next(tmp_path.glob("parts-*/head")).iterdir()) == [
        "config.json",
        "weights.safetensors",
    ]


def test_its_head_runs_on_our_encoder() -> None:
    model = SimilarityModel(PrecomputedEncoder(4), quaterion_heads.GatedHead(4))
    assert model.encode([[1, 2, 3, 4]]).shape == (1, 4)


def test_simtrain_itself_does_not_import_it() -> None:
    import subprocess

    code = "import sys, simtrain.models, simtrain.serving; assert 'quaterion_models' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
