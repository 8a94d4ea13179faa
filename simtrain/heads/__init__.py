"""Heads: the layers after the encoders."""

from __future__ import annotations

from simtrain.heads.asymmetric_head import AsymmetricHead
from simtrain.heads.empty_head import EmptyHead
from simtrain.heads.encoder_head import EncoderHead
from simtrain.heads.gated_head import GatedHead
from simtrain.heads.linear_head import LinearHead
from simtrain.heads.sequential_head import SequentialHead
from simtrain.heads.skip_connection_head import SkipConnectionHead
from simtrain.heads.softmax_embeddings_head import SoftmaxEmbeddingsHead
from simtrain.heads.stacked_projection_head import StackedProjectionHead
from simtrain.heads.switch_head import SwitchHead
from simtrain.heads.widening_head import WideningHead

__all__ = [
    "AsymmetricHead",
    "EmptyHead",
    "EncoderHead",
    "GatedHead",
    "LinearHead",
    "SequentialHead",
    "SkipConnectionHead",
    "SoftmaxEmbeddingsHead",
    "StackedProjectionHead",
    "SwitchHead",
    "WideningHead",
]
