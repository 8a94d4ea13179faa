"""The collate function of text encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simtrain.encoders.item_error import ItemError
from simtrain.encoders.tokenizer_forks import quiet_forks


def check_texts(items: Sequence[Any]) -> list[str]:
    """Return ``items`` as a list if all are texts with at least one character that is no space.

    Raises:
        ItemError: An item is no text or has no content; the message gives its position.

    Example:
        >>> check_texts(("a", "b"))
        ['a', 'b']
    """
    for position, item in enumerate(items):
        if not isinstance(item, str):
            raise ItemError(position, f"must be a text (str), got {type(item).__name__} {item!r:.60}")
        if not item.strip():
            raise ItemError(position, f"is an empty text ({item!r:.20}); remove it or give it content")
    return list(items)


@dataclass(frozen=True)
class TextCollate:
    """Checks texts and tokenizes them. Can be pickled, so loader workers can do the work.

    Args:
        tokenize: From a list of texts to the dict of tensors that the model takes.
    """

    tokenize: Callable[[list[str]], Mapping[str, Any]]

    def __call__(self, items: Sequence[Any]) -> dict[str, Any]:
        """Tokenize ``items``.

        Raises:
            ItemError: An item is no text or is empty.
        """
        return dict(self.tokenize(check_texts(items)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        quiet_forks()


@dataclass(frozen=True)
class Tokenize:
    """Tokenizes with a Hugging Face tokenizer alone, without the model that it belongs to.

    Args:
        tokenizer: A tokenizer of ``transformers``; texts are cut at its ``model_max_length``.
        prompt: Text put before every text.
    """

    tokenizer: Any
    prompt: str = ""

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        """Tokenize and pad to the longest text."""
        texts = [self.prompt + text for text in texts] if self.prompt else texts
        return dict(self.tokenizer(texts, padding=True, truncation="longest_first", return_tensors="pt"))


@dataclass(frozen=True)
class Preprocess:
    """Tokenizes with the input module of a sentence-transformers model.

    Args:
        preprocess: The module's bound ``preprocess`` (or ``tokenize``, in versions that lack it).
        prompt: Text put before every text.
    """

    preprocess: Callable[..., Mapping[str, Any]]
    prompt: str = ""

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        """Tokenize; the prompt is handed over only where there is one."""
        return dict(self.preprocess(texts, prompt=self.prompt) if self.prompt else self.preprocess(texts))
