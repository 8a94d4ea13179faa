"""Encoders: what turns raw items into vectors."""

from __future__ import annotations

from simtrain.encoders.encoder import CollateFn, Encoder
from simtrain.encoders.item_error import ItemError
from simtrain.encoders.module_encoder import ModuleEncoder
from simtrain.encoders.precomputed import PrecomputedEncoder
from simtrain.encoders.sentence_transformer import SentenceTransformerEncoder

__all__ = [
    "CollateFn",
    "Encoder",
    "ItemError",
    "ModuleEncoder",
    "PrecomputedEncoder",
    "SentenceTransformerEncoder",
]
