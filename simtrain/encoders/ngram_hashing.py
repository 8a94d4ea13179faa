"""From texts to the numbers of their n-grams, for a whole batch at once.

The numbers depend on the texts alone: they are the same in every process and on every machine.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simtrain.encoders.item_error import ItemError

Codes = NDArray[np.uint64]

# A run of ASCII punctuation is a word of its own; in other scripts, words keep their marks.
_WORD = re.compile(r"[^\s!-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]+")
_SPACE = np.uint64(ord(" "))
# Odd, so that it has an inverse modulo 2**64 and sums of its powers can be shifted.
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)


def normalized(text: str) -> str:
    """The text as n-grams see it: one form of each character, lower case, words between single spaces.

    Example:
        >>> normalized("  Red ﬁsh, np.Array ")
        ' red fish , np . array '
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return f" {' '.join(words)} " if words else ""


@dataclass(frozen=True)
class NgramHash:
    """Collate function from texts to the buckets of their words and of the n-grams in their words.

    A word's n-grams include the spaces around it, so that beginnings and ends differ from what is inside; they never
    reach into the next word. Each is hashed with its size.

    Args:
        n_buckets: Number of buckets.
        shortest: Characters of the shortest n-grams.
        longest: Characters of the longest.

    Example:
        >>> batch = NgramHash(1000, 3, 3)(["ab", ""])
        >>> len(batch["buckets"]), batch["offsets"].tolist()
        (3, [0, 3])
    """

    n_buckets: int
    shortest: int
    longest: int

    def __call__(self, items: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Hash texts.

        Returns:
            ``{"buckets": int64 of all n-grams of all texts in their order, "offsets": where each text begins}``.

        Raises:
            ItemError: An item is no text.
        """
        for position, item in enumerate(items):
            if not isinstance(item, str):
                raise ItemError(position, f"must be a text (str), got {type(item).__name__} {item!r:.60}")
        texts = [normalized(item) for item in items]
        buckets, kept = self._hashed("".join(texts))
        starts = np.cumsum([0, *(len(text) for text in texts)])
        before = np.concatenate([[0], np.cumsum(kept.sum(1))])  # n-grams before each character
        offsets = torch.from_numpy(before[starts[:-1]].astype(np.int64))
        return {"buckets": torch.from_numpy(buckets[kept].astype(np.int64)), "offsets": offsets}

    def _hashed(self, text: str) -> tuple[Codes, NDArray[np.bool_]]:
        """Buckets by first character (rows) and size (columns, the whole word last), and which of them exist."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
        prefix, shift = _prefix_sums(codes)
        positions, is_space = np.arange(len(codes)), codes == _SPACE
        # Where the space after the word ends that a character is in (or, for a space, the next word).
        word_end = _next_space(is_space) + 1
        # Between two texts there are two spaces, and no word.
        word_end[is_space & (word_end <= positions + 2)] = 0
        hashes = np.zeros((len(codes), self.longest - self.shortest + 2), np.uint64)
        kept = np.zeros(hashes.shape, bool)
        for column, size in enumerate(range(self.shortest, self.longest + 1)):
            last = len(codes) - size + 1
            if last > 0:
                hashes[:last, column] = (prefix[size:] - prefix[:last]) * shift[:last]
            kept[:, column] = positions + size <= word_end
        starts = np.flatnonzero(is_space & (word_end > 0))
        hashes[starts, -1] = (prefix[word_end[starts]] - prefix[starts]) * shift[starts]
        kept[starts, -1] = True
        if self.shortest == 1:
            kept[is_space, 0] = False  # a space alone says nothing
        sizes = np.append(np.arange(self.shortest, self.longest + 1), 0).astype(np.uint64)
        return _mixed(hashes + sizes * np.uint64(_INVERSE)) % np.uint64(self.n_buckets), kept


def _prefix_sums(codes: Codes) -> tuple[Codes, Codes]:
    """Sums of ``code * BASE ** position``, and the factors that bring a difference of two back to position 0."""
    powers = np.cumprod(np.full(len(codes), _BASE, np.uint64), dtype=np.uint64)
    # A code is spread over all bits first: small numbers in powers of one base would collide in patterns.
    terms = _mixed(codes) * powers
    prefix = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(terms, out=prefix[1:])
    return prefix, np.cumprod(np.full(len(codes), _INVERSE, np.uint64), dtype=np.uint64)


def _next_space(is_space: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each character the position of the first space after it; its own for the last."""
    spaces = np.flatnonzero(is_space)
    after = np.searchsorted(spaces, np.arange(len(is_space)), side="right")
    return np.append(spaces, len(is_space) - 1)[after]


def _mixed(values: Codes) -> Codes:
    """Spread each number over all 64 bits (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
