"""The prompts of text encoders: what is given for each side, or what a model brings along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simtrain.data.sides import SIDE_NAMES, Prompts
from simtrain.errors import ConfigError, nearest

#: What models call the side that is searched in; the first that is there counts.
_DOCUMENT_NAMES = ("document", "passage", "corpus")


def checked_prompts(prompts: Mapping[str, str]) -> Prompts:
    """Prompts from a setting ``{"query": text, "document": text}``; a side that is left out has none.

    Raises:
        ConfigError: It is no mapping, or names another side, or a prompt is no text.

    Example:
        >>> checked_prompts({"query": "query: "})
        Prompts(query='query: ', document='')
    """
    if not isinstance(prompts, Mapping):
        raise ConfigError(f"prompts must be {{'query': TEXT, 'document': TEXT}}, got {prompts!r:.80}")
    for side, prompt in prompts.items():
        if side not in SIDE_NAMES:
            raise ConfigError(f"prompts are given for the sides of a search, got {side!r}; {nearest(side, SIDE_NAMES)}")
        if not isinstance(prompt, str):
            raise ConfigError(f"the prompt of the side {side!r} must be a text, got {prompt!r:.80}")
    return Prompts(**prompts)


def own_prompts(model: Any) -> Prompts:
    """The prompts that a sentence-transformers model uses in its ``encode_query`` and ``encode_document``.

    None where it puts one prompt before every text anyway.

    Args:
        model: A ``SentenceTransformer``; ``"passage"`` and ``"corpus"`` stand for ``"document"``.
    """
    known: Mapping[str, Any] = getattr(model, "prompts", None) or {}
    if known.get(getattr(model, "default_prompt_name", None) or ""):
        return Prompts()
    document = next((known[name] for name in _DOCUMENT_NAMES if name in known), "")
    return Prompts(query=known.get("query") or "", document=document or "")


def prompts_dict(prompts: Prompts) -> dict[str, str]:
    """Prompts as JSON values, as :func:`checked_prompts` takes them."""
    return {"query": prompts.query, "document": prompts.document}
