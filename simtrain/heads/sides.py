"""The two sides of a search, as codes in ``meta["side"]``."""

from __future__ import annotations

QUERY = 0
DOCUMENT = 1

# Key of the codes in a batch's meta, and what each code stands for.
SIDE = "side"
SIDES = ("query", "document")
