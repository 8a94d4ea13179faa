"""The model: encoders, their outputs joined, a head. Encoding, saving and loading."""

from __future__ import annotations

from simtrain.models.encoding import check_finite, cosine_matrix
from simtrain.models.similarity_model import SimilarityModel

__all__ = [
    "SimilarityModel",
    "check_finite",
    "cosine_matrix",
]
