"""Parts as users of quaterion-models and of simtrain write them, and what both sides are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simtrain import registry
from simtrain.encoders import (
    NgramEncoder,
    SwitchEncoder,
)
from simtrain.heads.sequential_layers import LAYERS
from simtrain.models import SimilarityModel

quaterion: Any = pytest.importorskip("quaterion_models")
quaterion_heads: Any = pytest.importorskip("quaterion_models.heads")
quaterion_encoders: Any = pytest.importorskip("quaterion_models.encoders")


class Letters(quaterion_encoders.Encoder):  # type: ignore[misc]
    """An encoder as its users write them: texts to counts of letters, through a layer."""

    def __init__(self, letters: str = "abc", trainable: bool = False) -> None:
        super().__init__()
        self.letters, self._trainable = letters, trainable
        self.layer = nn.Linear(len(letters), 3)

    @property
    def trainable(self) -> bool:
        return self._trainable

    @property
    def embedding_size(self) -> int:
        return 3

    def get_collate_fn(self) -> Any:
        return lambda texts: torch.tensor([[float(text.count(one)) for one in self.letters] for text in texts])

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(batch)
        return output

    def save(self, output_path: str) -> None:
        torch.save(self.state_dict(), Path(output_path) / "weights.bin")
        (Path(output_path) / "letters.txt").write_text(self.letters)

    @classmethod
    def load(cls, input_path: str) -> Letters:
        encoder = cls((Path(input_path) / "letters.txt").read_text())
        encoder.load_state_dict(torch.load(Path(input_path) / "weights.bin", weights_only=True))
        return encoder


class ByLength(quaterion_encoders.SwitchEncoder):  # type: ignore[misc]
    """Long texts through one encoder, short ones through another."""

    @classmethod
    def encoder_selection(cls, record: str) -> str:
        return "long" if len(record) > 3 else "short"


@registry.encoders.register_module("compat_by_length")
class OurByLength(SwitchEncoder):
    """The same, as users of simtrain write it."""

    @classmethod
    def encoder_selection(cls, record: str) -> str:
        return "long" if len(record) > 3 else "short"


class Scaling(quaterion_heads.EncoderHead):  # type: ignore[misc]
    """A head of a user's own."""

    def __init__(self, input_embedding_size: int, **words: Any) -> None:
        super().__init__(input_embedding_size, **words)
        self.factor = nn.Parameter(torch.tensor(1.0))

    @property
    def output_size(self) -> int:
        return int(self.input_embedding_size)

    def transform(self, input_vectors: torch.Tensor) -> torch.Tensor:
        return input_vectors * self.factor


TEXTS = ["abc", "a", "bbca", "cab", "ccccc", "", "aabb"]
SIZES = {"one": 3, "two": 6}
LAYERS_OF = {
    "plain": lambda size: [nn.Linear(size, 5), nn.GELU(), nn.LayerNorm(5), nn.Dropout(0.3), nn.Linear(5, 4)],
    "norms": lambda size: [nn.BatchNorm1d(size), nn.PReLU(), nn.GroupNorm(3, size), nn.Linear(size, 4, bias=False)],
}


def their_encoders(count: str) -> dict[str, nn.Module]:
    # The second name comes first in the order that both sides join in.
    return {"text": Letters("abc"), "extra": Letters("bca")} if count == "two" else {"default": Letters("abc")}


def our_encoders(count: str) -> dict[str, nn.Module]:
    names = ["text", "extra"] if count == "two" else ["default"]
    return {name: NgramEncoder(3, n_buckets=50, ngrams=(1, 2)) for name in names}


def randomized(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return model


def load_there(path: Path) -> Any:
    """Load with the real package, which hands SequentialHead's modules to torch as a pickle of any classes."""
    layers = [getattr(nn, name) for name in LAYERS if hasattr(nn, name)]
    with torch.serialization.safe_globals([nn.Sequential, set, *layers]):
        return quaterion.SimilarityModel.load(str(path))


def assert_equal(here: SimilarityModel, there: Any, texts: list[str] = TEXTS) -> None:
    vectors = here.encode(texts)
    assert np.abs(vectors).max() > 1e-2
    np.testing.assert_allclose(vectors, there.encode(texts), atol=1e-6, rtol=0)
