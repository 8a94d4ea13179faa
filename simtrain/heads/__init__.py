"""Heads: the layers after the encoders."""

from __future__ import annotations

from simtrain.heads.empty_head import EmptyHead
from simtrain.heads.encoder_head import EncoderHead
from simtrain.heads.skip_connection_head import SkipConnectionHead
from simtrain.heads.stacked_projection_head import StackedProjectionHead

__all__ = [
    "EmptyHead",
    "EncoderHead",
    "SkipConnectionHead",
    "StackedProjectionHead",
]
