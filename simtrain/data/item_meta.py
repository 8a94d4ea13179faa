"""What heads are told of the items of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from simtrain.data.sides import SIDE
from simtrain.errors import DataError, nearest

Extractor = Callable[[Sequence[Any]], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class ItemMeta:
    """Gathers what a head wants to know of each item; light enough for loader workers.

    Args:
        wanted: Key → the names that it can have, for a head that takes whole numbers: positions in these names.
            None for a head of quaterion-models, which takes a dict for each item.
        extractors: Functions of the encoders from items to a dict for each of them.

    Example:
        >>> ItemMeta({"side": ("query", "document")})(["how old", "age()"], [0, 1])
        {'side': tensor([0, 1])}
    """

    wanted: Mapping[str, Sequence[str]] | None
    extractors: Sequence[Extractor] = ()

    def __call__(
        self, items: Sequence[Any], sides: Sequence[int] | None
    ) -> dict[str, Tensor] | list[dict[str, Any]] | None:
        """Describe the items; None where there is nothing to say of them.

        Raises:
            DataError: An encoder described another number of items, or an item by an unknown name.
        """
        if self.wanted is None:
            return self._merged(items) or None
        codes = {SIDE: torch.tensor(sides)} if SIDE in self.wanted and sides is not None else {}
        for key in self.wanted:
            if key != SIDE:
                codes[key] = self._codes(key, items)
        return codes

    def _codes(self, key: str, items: Sequence[Any]) -> Tensor:
        assert self.wanted is not None
        places = {name: place for place, name in enumerate(self.wanted[key])}
        names = [said[key] for said in self._merged(items)]
        unknown = next((name for name in names if name not in places), None)
        if unknown is not None:
            raise DataError(
                f"an item's {key!r} is {unknown!r}, which the head does not know; {nearest(unknown, places)}"
            )
        return torch.tensor([places[name] for name in names], dtype=torch.long)

    def _merged(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        merged: list[dict[str, Any]] = [{} for _ in items]
        for extractor in self.extractors:
            said = extractor(items)
            if len(said) != len(items):
                raise DataError(f"an encoder described {len(said)} of {len(items)} items; check its meta extractor")
            for known, more in zip(merged, said, strict=True):
                known.update(more)
        return merged
