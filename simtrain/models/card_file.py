"""The file of a model card, and whose it is."""

from __future__ import annotations

from pathlib import Path

CARD_FILE = "README.md"
MARK = "<!-- Written by simtrain at each save of the model. Remove this line to keep a text of your own. -->"


def may_be_replaced(file: Path) -> bool:
    """Whether ``file`` is missing or a card that simtrain wrote and nobody has taken over."""
    if not file.exists():
        return not file.is_symlink()
    return file.is_file() and MARK in file.read_text(encoding="utf-8", errors="replace")
