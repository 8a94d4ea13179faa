"""One way to build each head that is registered, and what its items say."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import simtrain.heads
from simtrain import registry
from simtrain.heads import EncoderHead

HEADS = [name for name in simtrain.heads.__all__ if name != "EncoderHead"]

EXTRA_WORDS: dict[str, dict[str, Any]] = {
    "AsymmetricHead": {"query": {"type": "SkipConnectionHead"}, "document": {"type": "GatedHead"}},
    "LinearHead": {"output_size": 3},
    "SequentialHead": {
        "layers": [
            {"type": "LayerNorm"},
            {"type": "Linear", "out_features": 7},
            {"type": "ReLU"},
            {"type": "BatchNorm1d"},
            {"type": "SkipConnectionHead"},
            {"type": "Linear", "out_features": 3, "bias": False},
        ],
        "output_size": 3,
    },
    "SoftmaxEmbeddingsHead": {"output_groups": 2, "output_size_per_group": 3},
    "StackedProjectionHead": {"output_sizes": [7, 3]},
    "SwitchHead": {
        "options": {
            "text": {"type": "LinearHead", "output_size": 3},
            "image": {"type": "StackedProjectionHead", "output_sizes": [5, 3]},
            "sound": {"type": "SequentialHead", "layers": [{"type": "Linear", "out_features": 3}], "output_size": 3},
        }
    },
    "WideningHead": {"expansion_factor": 1.5},
}


def built(name: str, size: int, **words: Any) -> EncoderHead:
    head: EncoderHead = registry.heads.build({"type": name, **EXTRA_WORDS.get(name, {}), **words}, size)
    return head


def meta_of(count: int) -> dict[str, Tensor]:
    """What every head that chooses by item needs: items take turns."""
    return {"encoder": torch.arange(count) % 3, "side": torch.arange(count) % 2}
