"""Tiny models and data for the tests of training."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from simtrain import TrainableModel
from simtrain.data import SimilarityGroupSample, SimilarityPairSample
from simtrain.encoders import Encoder
from simtrain.heads import SkipConnectionHead, StackedProjectionHead
from simtrain.losses import MultipleNegativesRankingLoss, TripletLoss

#: Size of every batch that a BagEncoder has encoded. Not an attribute of the encoder: that would be its identity.
ENCODED: list[int] = []


class BagEncoder(Encoder):
    """Counts the letters of a text, then batch norm, dropout and a linear layer."""

    cache_ignores = frozenset({"ENCODED"})

    def __init__(self, size: int = 8, trainable: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.norm = nn.BatchNorm1d(26)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(26, size)
        self.linear.weight.data = torch.randn(size, 26, generator=generator)
        self.size, self._trainable = size, trainable

    @property
    def trainable(self) -> bool:
        return self._trainable

    @property
    def embedding_size(self) -> int:
        return self.size

    def get_collate_fn(self):
        return count_letters

    def forward(self, batch):
        ENCODED.append(len(batch))
        return self.linear(self.dropout(self.norm(batch)))

    def save(self, output_path):
        save_file(self.state_dict(), Path(output_path) / "bag.safetensors")

    @classmethod
    def load(cls, input_path):
        encoder = cls()
        encoder.load_state_dict(load_file(Path(input_path) / "bag.safetensors"))
        return encoder


def count_letters(texts):
    return torch.tensor([[float(text.count(chr(97 + letter))) for letter in range(26)] for text in texts])


NEXT_LETTER = {97 + letter: 97 + (letter + 1) % 26 for letter in range(26)}


def words(n: int, seed: int = 0) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    letters = torch.randint(0, 26, (n, 6), generator=generator)
    return ["".join(chr(97 + int(letter)) for letter in row) for row in letters]


def pair_samples(n: int = 24) -> list[SimilarityPairSample]:
    """A word matches the word of the letters that follow its own in the alphabet."""
    return [SimilarityPairSample(word, word.translate(NEXT_LETTER)) for word in words(n)]


def group_samples(n: int = 24, groups: int = 6) -> list[SimilarityGroupSample]:
    return [SimilarityGroupSample(word, position % groups) for position, word in enumerate(words(n))]


def pair_model(**parts) -> TrainableModel:
    torch.manual_seed(1)
    defaults = {"encoders": BagEncoder(), "head": SkipConnectionHead, "loss": MultipleNegativesRankingLoss()}
    return TrainableModel(**{**defaults, **parts})


def group_model(**parts) -> TrainableModel:
    torch.manual_seed(1)
    defaults = {
        "encoders": BagEncoder(),
        "head": lambda size: StackedProjectionHead(size, [16, 4]),
        "loss": TripletLoss(margin=0.3),
    }
    return TrainableModel(**{**defaults, **parts})
