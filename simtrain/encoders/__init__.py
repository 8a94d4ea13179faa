"""Encoders: what turns raw items into vectors."""

from __future__ import annotations

from simtrain.encoders.encoder import CollateFn, Encoder, MetaExtractor, SideFn
from simtrain.encoders.item_error import ItemError
from simtrain.encoders.module_encoder import ModuleEncoder
from simtrain.encoders.ngram import NgramEncoder
from simtrain.encoders.precomputed import PrecomputedEncoder
from simtrain.encoders.sentence_transformer import SentenceTransformerEncoder
from simtrain.encoders.switch_encoder import SwitchEncoder
from simtrain.encoders.transformer import TransformerEncoder
from simtrain.encoders.vision import VisionEncoder

__all__ = [
    "CollateFn",
    "Encoder",
    "ItemError",
    "MetaExtractor",
    "ModuleEncoder",
    "NgramEncoder",
    "PrecomputedEncoder",
    "SentenceTransformerEncoder",
    "SideFn",
    "SwitchEncoder",
    "TransformerEncoder",
    "VisionEncoder",
]
