"""What determines the embeddings of a sentence-transformers model, beside its weights, as JSON values."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def describe_model(model: Any) -> dict[str, Any]:
    """Modules with their settings, limits, prompt, and digests of architecture and tokenizer.

    It stays the same when the model is saved and loaded, wherever its folder lies.

    Args:
        model: A ``sentence_transformers.SentenceTransformer``.
    """
    return {
        "modules": [_module(module) for module in model],
        "max_seq_length": model.max_seq_length,
        "truncate_dim": model.truncate_dim,
        "prompt": default_prompt(model),
        "tokenizer": tokenizer_digest(getattr(model, "tokenizer", None)),
    }


def default_prompt(model: Any) -> str:
    """Text that ``model`` puts before every text, or an empty text."""
    name = getattr(model, "default_prompt_name", None)
    return "" if name is None else str(model.prompts.get(name) or "")


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Digest of vocabulary, normalization and rules; the same for equal tokenizers."""
    rust = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(rust, "to_str"):
        return _digest([type(tokenizer).__name__, lasting_rules(rust.to_str())])
    if hasattr(tokenizer, "get_vocab"):
        return _digest([type(tokenizer).__name__, tokenizer.get_vocab()])
    return None


def lasting_rules(state: str) -> str:
    """The JSON of a fast tokenizer without its settings for padding and truncation, which every call sets anew.

    Example:
        >>> lasting_rules('{"version": "1.0", "truncation": null, "padding": null, "added_tokens": []}')
        '"added_tokens": []}'
    """
    start = state.find('"added_tokens"')
    if start >= 0 and max(state.find('"truncation"'), state.find('"padding"')) < start:
        return state[start:]  # the usual order of keys: parsing a vocabulary takes a hundred times longer
    settings = json.loads(state)
    return json.dumps({key: value for key, value in settings.items() if key not in ("truncation", "padding")})


def architecture_digest(config: Any) -> str:
    """Digest of a transformers config, without what says nothing of the function; the same wherever it was loaded."""
    # Versions, paths and the weights' dtype are no part of the function; private keys say how it is computed.
    ignored = {"transformers_version", "torch_dtype", "dtype", "architectures"}
    return _digest({key: v for key, v in config.to_dict().items() if key not in ignored and not key.startswith("_")})


def _module(module: Any) -> dict[str, Any]:
    settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    described = {"type": type(module).__name__, **_plain(settings)}
    config = getattr(getattr(module, "auto_model", None), "config", None)
    return described if config is None else {**described, "architecture": architecture_digest(config)}


def _plain(settings: Any) -> Any:
    return json.loads(json.dumps(settings, default=str))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:32]
