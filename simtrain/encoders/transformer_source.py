"""Where a transformer and its tokenizer come from: a folder, an installed package, the hub, or the user."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from simtrain.encoders.model_source import model_folder
from simtrain.encoders.quiet_progress import quiet_progress
from simtrain.errors import ConfigError, ServableError, import_extra


def loaded_transformer(model: Any, tokenizer: Any, device: str | torch.device | None) -> tuple[Any, Any]:
    """A transformer without a task's head, and a tokenizer of its own that pads on the right.

    Args:
        model: A folder, the name of an installed package or of a model on the hub, or a ``PreTrainedModel``.
        tokenizer: A tokenizer of ``transformers``. Default: the one beside a model that is loaded.
        device: Where to put the model. Default: an object's own place, else the CPU.

    Raises:
        ConfigError: The model cannot be found, loaded or used.
        MissingExtraError: transformers is not installed.
    """
    library = import_extra("transformers", "text")
    if isinstance(model, (str, Path)):
        folder = model_folder(str(model))
        network = _from_name(library.AutoModel, str(folder or model), folder is not None)
        tokenizer = tokenizer or _from_name(library.AutoTokenizer, str(folder or model), folder is not None)
    elif isinstance(model, library.PreTrainedModel):
        network = model.base_model
    else:
        raise ConfigError(f"model must be a folder, a PreTrainedModel, a package or a hub name, got {model!r:.80}")
    if tokenizer is None:
        raise ConfigError(f"a {type(model).__name__} needs its tokenizer, give tokenizer=")
    if getattr(network.config, "is_encoder_decoder", False):
        raise ConfigError(
            f"{type(network).__name__} is an encoder with a decoder, which has no one output to pool; give the model "
            f"of its encoder alone (T5EncoderModel, say)"
        )
    return (network if device is None else network.to(device)), own_tokenizer(tokenizer)


def saved_transformer(folder: Path, class_name: Any) -> tuple[Any, Any]:
    """The transformer and tokenizer in a folder that an encoder wrote.

    Args:
        folder: The folder.
        class_name: Name of the model's class; one of transformers, no code is loaded from files.

    Raises:
        ServableError: The class is unknown, or a file is damaged.
    """
    library = import_extra("transformers", "text")
    kind = getattr(library, class_name, None) if isinstance(class_name, str) else None
    if not isinstance(kind, type) or not issubclass(kind, library.PreTrainedModel):
        raise ServableError(
            f"{folder} holds a {class_name!r}, which is no model class of transformers, and no code is loaded from "
            f"files: build the model yourself and pass it to the encoder"
        )
    try:
        return _from_name(kind, str(folder), True), _from_name(library.AutoTokenizer, str(folder), True)
    except ConfigError as error:
        raise ServableError(f"{folder} does not hold a whole transformer: {error}") from error


def own_tokenizer(tokenizer: Any) -> Any:
    """A copy of a tokenizer that pads on the right: learned positions then count from the first token.

    Raises:
        ConfigError: It has no token to pad with.
    """
    copied = copy.deepcopy(tokenizer)
    copied.padding_side = "right"
    if copied.pad_token is None:
        if copied.eos_token is None:
            raise ConfigError(f"{type(tokenizer).__name__} has no token to pad with; set its pad_token")
        copied.pad_token = copied.eos_token
    return copied


def position_limit(model: Any) -> int | None:
    """Number of tokens that the model has positions for, or None where it does not say."""
    config = model.config
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)  # RoBERTa counts from the one after it
    return limit if padding is None else limit - padding - 1


def _from_name(kind: Any, name: str, local: bool) -> Any:
    try:
        with quiet_progress():
            # False, not unset: unset would ask the user at the terminal whether to run a model's own code.
            return kind.from_pretrained(name, local_files_only=local, trust_remote_code=False)
    except Exception as error:  # the loaders raise OSError, ValueError, KeyError, SafetensorError and more
        found = "the folder" if local else "it is neither a folder nor an installed model package, and the hub"
        raise ConfigError(
            f"model {name!r}: {found} gave no {kind.__name__} of transformers ({type(error).__name__}: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0][:200]})"
        ) from error
