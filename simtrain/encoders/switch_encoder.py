"""The encoder of mixed batches: each item goes through the encoder of its kind, into one space."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simtrain import registry
from simtrain.encoders.encoder import CollateFn, Encoder, MetaExtractor, SideFn
from simtrain.encoders.item_kinds import IMAGE, TEXT, kind_of
from simtrain.encoders.saved_classes import allowing, saved_class, type_name
from simtrain.encoders.saved_encoder import Ready, check_names, fill_encoder, load_encoder
from simtrain.encoders.settings_file import read_settings, write_settings
from simtrain.encoders.switch_collate import SwitchCollate, SwitchMeta, SwitchSides
from simtrain.errors import ConfigError, ServableError, nearest

SETTINGS_FILE = "encoder.json"


@registry.encoders.register_module()
class SwitchEncoder(Encoder):
    """Several encoders of one embedding size, of which each item takes one: for texts and images in one space, say.

    With encoders named ``"text"`` and ``"image"`` (or one of them) the type of an item decides: a str is a text; a
    PIL image, array, tensor, ``pathlib.Path`` or bytes an image. For anything else subclass and override
    :meth:`encoder_selection`. Frozen encoders stay in eval mode and run without autograd beside trainable ones. A
    :class:`~simtrain.heads.SwitchHead` sends the embeddings of each through a head of its own.

    Args:
        options: Encoders by name, each as it is or as its config, ``{"type": "NgramEncoder", "embedding_size": 64}``.

    Raises:
        ConfigError: There is none, a config is wrong, a name cannot be used, something is no encoder, the sizes differ,
            or the names need a rule of their own.

    Example:
        >>> from simtrain.encoders import ModuleEncoder, NgramEncoder
        >>> image = ModuleEncoder(nn.Flatten(), embedding_size=4)
        >>> encoder = SwitchEncoder({"text": NgramEncoder(4), "image": image})
        >>> batch = encoder.get_collate_fn()(["a square", torch.ones(2, 2), "a cat"])
        >>> encoder(batch)[1].tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        if not isinstance(options, Mapping) or not options:
            raise ConfigError(f"options must give one or more encoders by name, got {options!r:.80}")
        self._names = sorted(options, key=str)
        for name in self._names:
            self.add_module(self._usable(name), _checked(name, _built(name, options[name])))
        self._embedding_size = _common_size(self.options)
        self._check_selection()
        self.train(self.training)

    @classmethod
    def encoder_selection(cls, record: Any) -> str:
        """Name of the encoder that ``record`` takes. Called in loader workers, too."""
        return kind_of(record)

    @property
    def options(self) -> dict[str, Any]:
        """The encoders by name, sorted."""
        return {name: self.get_submodule(name) for name in self._names}

    @property
    def trainable(self) -> bool:
        """Whether training may change any of the encoders."""
        return any(option.trainable for option in self.options.values())

    @property
    def embedding_size(self) -> int:
        """Number of dimensions that every encoder gives."""
        return self._embedding_size

    def train(self, mode: bool = True) -> SwitchEncoder:
        """Switch to train or eval mode; frozen encoders stay in eval mode."""
        super().train(mode)
        for option in self.options.values():
            if not option.trainable:
                option.eval()
        return self

    def get_collate_fn(self) -> CollateFn:
        """Function that sorts items out and collates those of each encoder; see :class:`SwitchCollate`."""
        collates = {name: option.get_collate_fn() for name, option in self.options.items()}
        return SwitchCollate(self.encoder_selection, collates)

    def get_side_fn(self) -> SideFn | None:
        """Function that marks each item as its encoder does, if any does."""
        # Encoders of quaterion-models have no sides.
        getters = {name: getattr(option, "get_side_fn", None) for name, option in self.options.items()}
        side_fns = {name: get() if get else None for name, get in getters.items()}
        return SwitchSides(self.encoder_selection, side_fns) if any(side_fns.values()) else None

    def get_meta_extractor(self) -> MetaExtractor:
        """Function that gives ``{"encoder": name}`` for each item."""
        return SwitchMeta(self.encoder_selection, self._names)

    def forward(self, batch: Mapping[str, Any]) -> Float[Tensor, "batch dim"]:
        """Embed a mixed batch.

        Args:
            batch: What the collate function made, on this encoder's device (positions may be anywhere).

        Returns:
            Embeddings, shape ``(batch, embedding_size)``, in the order of the items.
        """
        embeddings = self._joined(batch["batches"], batch["ordering"])
        idle = self._idle_weights(set(batch["batches"])) if torch.is_grad_enabled() else []
        return embeddings + sum(weight.flatten()[:0].sum() for weight in idle) if idle else embeddings

    def item_length(self, item: Any) -> int:
        """What the item's encoder says; 0 where no encoder takes it."""
        option = self.options.get(self.encoder_selection(item))
        # Encoders of quaterion-models have no lengths.
        measure = getattr(option, "item_length", None)
        return int(measure(item)) if measure else 0

    def is_one_item(self, inputs: Any) -> bool:
        """What any of the encoders says."""
        return any(option.is_one_item(inputs) for option in self.options.values() if isinstance(option, Encoder))

    def get_config_dict(self) -> dict[str, Any]:
        """Class and config of each encoder."""
        return {"options": {name: _described(option) for name, option in self.options.items()}}

    def save(self, output_path: str | Path) -> None:
        """Write ``encoder.json`` and a folder for each encoder into an existing folder."""
        folder = Path(output_path)
        types = {name: type_name(option, registry.encoders) for name, option in self.options.items()}
        for name, option in self.options.items():
            (folder / name).mkdir(exist_ok=True)
            option.save(str(folder / name))
        write_settings(folder / SETTINGS_FILE, {"options": {name: {"type": types[name]} for name in types}})

    def load_weights(self, input_path: str | Path) -> None:
        """Read what :meth:`save` wrote into the encoders of this one.

        Raises:
            ServableError: A file is missing or damaged, or the saved encoders have other names, settings or weights.
        """
        folder = Path(input_path)
        saved = sorted(_entries(folder / SETTINGS_FILE))
        if saved != self._names:
            raise ServableError(f"{folder} holds the encoders {saved}, but the given one has {self._names}")
        for name, option in self.options.items():
            fill_encoder(option, folder / name)

    @classmethod
    def load(
        cls, input_path: str | Path, allow: Collection[type] = (), encoders: Mapping[str, Ready] | None = None
    ) -> SwitchEncoder:
        """Rebuild the encoder from a folder that :meth:`save` wrote.

        Args:
            input_path: The folder.
            allow: Classes of encoders that may be loaded beside the registered ones.
            encoders: Encoders built by the caller (those around a module of his own), by name; the saved weights are
                read into them, the others are loaded.

        Raises:
            ServableError: A file is missing or damaged, or names a class that is neither registered nor allowed; or a
                given encoder does not fit.
        """
        file, ready = Path(input_path) / SETTINGS_FILE, encoders or {}
        entries = _entries(file)
        check_names(ready, entries, file.parent)
        with allowing(allow):
            # All classes are checked before any encoder's file is read.
            classes = {
                name: None if isinstance(ready.get(name), nn.Module) else saved_class(kind, registry.encoders, file)
                for name, kind in entries.items()
            }
            options = {name: load_encoder(kind, file.parent / name, ready.get(name)) for name, kind in classes.items()}
        try:
            return cls(options)
        except ConfigError as error:
            raise ServableError(f"{file} does not describe a {cls.__name__}: {error}") from error

    def _embedded(self, name: str, batch: Any) -> Tensor:
        if name not in self._names:
            raise ConfigError(f"the batch is of the encoder {name!r}; {nearest(name, self._names)}")
        option = self.options[name]
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(option.trainable)):
            embeddings: Tensor = option(batch)
        return embeddings

    def _joined(self, batches: Mapping[str, Any], ordering: Mapping[str, Any]) -> Tensor:
        if not batches:
            return torch.zeros(0, self._embedding_size, device=_device_of(self))
        embeddings = torch.cat([self._embedded(name, part) for name, part in batches.items()])
        rows = torch.cat([torch.as_tensor(ordering[name]) for name in batches])
        # No index may stay behind on another device than the embeddings.
        return embeddings[rows.argsort().to(embeddings.device)]

    def _idle_weights(self, used: set[str]) -> list[Tensor]:
        # Zero gradients for encoders without items: every process then updates the same weights, whoever saw what.
        idle = [weight for name, option in self.options.items() if name not in used for weight in option.parameters()]
        return [weight for weight in idle if weight.requires_grad]

    def _check_selection(self) -> None:
        rules = [getattr(cls.encoder_selection, "__func__", None) for cls in (type(self), SwitchEncoder)]
        unknown = [name for name in self._names if name not in (TEXT, IMAGE)]
        if unknown and rules[0] is rules[1]:
            raise ConfigError(
                f"by their type, items go to encoders named 'text' and 'image', never to {unknown[0]!r}; rename it, "
                f"or subclass SwitchEncoder and override encoder_selection"
            )

    def _usable(self, name: Any) -> str:
        if not _is_plain(name) or hasattr(self, name):
            raise ConfigError(
                f"an encoder's name must be made of letters, digits, '_' and '-', and none that the switch uses "
                f"itself, got {name!r}; choose another"
            )
        return str(name)


def _built(name: str, given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    try:
        return registry.encoders.build(given)
    except ConfigError as error:
        raise type(error)(f"option {name!r}: {error}") from error


def _checked(name: str, option: Any) -> nn.Module:
    wanted = ("trainable", "embedding_size", "get_collate_fn")
    if not isinstance(option, nn.Module) or not all(hasattr(type(option), word) for word in wanted):
        raise ConfigError(f"option {name!r} must be a simtrain.encoders.Encoder, got {type(option).__name__}")
    if not option.trainable:
        option.requires_grad_(False)
    return option


def _common_size(options: Mapping[str, Any]) -> int:
    sizes = {name: int(option.embedding_size) for name, option in options.items()}
    if len(set(sizes.values())) > 1:
        raise ConfigError(
            "the encoders must give embeddings of one size, but "
            + ", ".join(f"{name!r} gives {size}" for name, size in sizes.items())
        )
    return next(iter(sizes.values()))


def _device_of(module: nn.Module) -> torch.device:
    return next((weight.device for weight in module.parameters()), torch.device("cpu"))


def _described(option: Any) -> dict[str, Any]:
    return {"type": type(option).__name__, **getattr(option, "get_config_dict", dict)()}


def _entries(file: Path) -> dict[str, str]:
    """For each saved encoder's name that of its class."""
    entries = read_settings(file).get("options")
    if not isinstance(entries, dict) or not entries:
        raise ServableError(f"{file} must give the encoders under 'options', got {entries!r:.80}")
    for name, entry in entries.items():
        if not _is_plain(name):
            raise ServableError(f"{file} has an encoder named {name!r}, which is no name of a folder")
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise ServableError(f"{file} must give each encoder as {{'type': NAME}}, got {entry!r:.80}")
    return {name: entry["type"] for name, entry in entries.items()}


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name.isascii() and name.replace("-", "_").isidentifier()
