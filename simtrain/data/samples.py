"""The three kinds of training samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SimilarityGroupSample:
    """An item and the group that it belongs to: items of one group are similar.

    Attributes:
        obj: The raw item (a text, an image, a tensor, ...), handed to the encoders' collate functions.
        group: Label of the group, any integer.

    Example:
        >>> SimilarityGroupSample(obj="a red shoe", group=3)
        SimilarityGroupSample(obj='a red shoe', group=3)
    """

    obj: Any
    group: int


@dataclass(frozen=True, slots=True)
class SimilarityPairSample:
    """Two items with a score of how similar they are. In search, ``obj_a`` is the query, ``obj_b`` the document.

    Attributes:
        obj_a: First raw item (the query).
        obj_b: Second raw item (the document).
        score: 1.0 for a match, 0.0 for a known mismatch, anything between where a loss takes grades.
        subgroup: Pairs with the same non-zero subgroup are never taken as each other's negatives. 0 means that
            none was given: pairwise ranking losses then take every other pair's items as negatives.

    Example:
        >>> SimilarityPairSample("largest item of a list", "builtins.max(iterable)").score
        1.0
    """

    obj_a: Any
    obj_b: Any
    score: float = 1.0
    subgroup: int = 0


@dataclass(frozen=True, slots=True)
class SimilarityTripletSample:
    """An anchor, an item that matches it, and one or more that do not.

    Attributes:
        anchor: The raw item searched with.
        positive: A raw item that matches.
        negatives: One or more raw items that do not match.

    Example:
        >>> SimilarityTripletSample("king", "queen", negatives=["chair"]).negatives
        ['chair']
    """

    anchor: Any
    positive: Any
    negatives: Sequence[Any]
