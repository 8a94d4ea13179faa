from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from torch import nn

from simtrain.cache import CacheConfig, open_cache
from simtrain.encoders import Encoder


def text_features(texts: Sequence[str]) -> torch.Tensor:
    rows = [np.frombuffer(xxhash.xxh3_128_digest(text.encode()), dtype=np.uint8) / 255.0 for text in texts]
    return torch.tensor(np.stack(rows), dtype=torch.float32)


class DigestEncoder(Encoder):
    """Embeds texts by their digests and counts what it encodes."""

    cache_ignores = frozenset({"batches"})

    def __init__(self, size: int = 4, scale: float = 1.0, trainable: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(16, size, generator=generator))
        self.scale = scale
        self.is_trainable = trainable
        self.batches: list[int] = []

    @property
    def trainable(self) -> bool:
        return self.is_trainable

    @property
    def embedding_size(self) -> int:
        return self.weight.shape[1]

    @property
    def n_encoded(self) -> int:
        return sum(self.batches)

    def get_collate_fn(self) -> Callable[[Sequence[Any]], Any]:
        return text_features

    def get_config_dict(self) -> dict[str, Any]:
        return {"size": self.embedding_size, "scale": self.scale}

    def item_length(self, item: Any) -> int:
        return len(item)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(batch))
        return torch.nn.functional.dropout(batch, 0.5, self.training) @ self.weight * self.scale


@pytest.fixture
def make_encoder() -> type[DigestEncoder]:
    return DigestEncoder


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=["cpu", "disk"])
def opened(request, tmp_path):
    def open_(encoder, **words):
        return open_cache("text", encoder, CacheConfig(save_dir=tmp_path, **words), request.param)

    return open_
