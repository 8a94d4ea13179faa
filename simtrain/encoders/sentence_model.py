"""What the encoder of texts asks of a sentence-transformers model."""

from __future__ import annotations

from typing import Any

import torch

from simtrain.data.sides import Prompts
from simtrain.encoders.partial_freezing import last_layers
from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.side_prompts import prompts_dict
from simtrain.encoders.text_identity import default_prompt
from simtrain.errors import ConfigError


def dimension_of(model: Any) -> int:
    """Number of dimensions of one embedding."""
    if hasattr(model, "get_embedding_dimension"):
        return int(model.get_embedding_dimension())
    return int(model.get_sentence_embedding_dimension())  # the name in older versions


def checked_length(model: Any, length: Any) -> int:
    """Number of tokens, if the model has so many positions.

    Raises:
        ConfigError: It is no positive integer, or too large.
    """
    positive_size("max_seq_length", length)
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    limit = getattr(config, "max_position_embeddings", None)
    if isinstance(limit, int) and length > limit > 0:
        raise ConfigError(f"max_seq_length must be at most {limit}, the model's number of positions, got {length}")
    return int(length)


def trained_parts(model: Any, count: int) -> list[torch.nn.Module]:
    """The last ``count`` layers of the transformer, and the modules after it."""
    return [*last_layers(model[0], count), *list(model)[1:]]


def set_prompts(model: Any, prompts: Prompts) -> Prompts:
    """Give the model prompts by side, for its own methods too.

    Raises:
        ConfigError: It puts a prompt of its own before every text.
    """
    before_all = default_prompt(model)
    if prompts and before_all:
        raise ConfigError(
            f"the model puts {before_all!r} before every text, which prompts would come on top of; "
            f"set its default_prompt_name to None to give prompts by side"
        )
    # The model's own encode_query and encode_document then use them, too, also once it is saved.
    if not before_all:
        model.prompts = {**model.prompts, **prompts_dict(prompts)}
    return prompts


def transformer_of(model: Any) -> torch.nn.Module:
    """The transformer of a sentence-transformers model.

    Raises:
        ConfigError: Its first module is none.
    """
    transformer = getattr(model[0], "auto_model", None)
    if not isinstance(transformer, torch.nn.Module):
        raise ConfigError(f"lora needs a transformer, the model's first module is a {type(model[0]).__name__}")
    return transformer


def tokenizes_alone(module: Any) -> bool:
    """Whether the module's ``preprocess`` is nothing but a call of its tokenizer, which pickles without weights."""
    if type(module).__name__ != "Transformer" or not type(module).__module__.startswith("sentence_transformers."):
        return False
    return (
        set(getattr(module, "modality_config", ())) == {"text"}
        and getattr(module, "processor", None) is module.tokenizer
        and getattr(module, "transformer_task", None) == "feature-extraction"
        and not getattr(module, "processing_kwargs", None)
        and not getattr(module, "can_flatten_inputs", False)
    )
