"""The encoder made of any torch module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from simtrain.encoders.encoder import CollateFn, Encoder
from simtrain.encoders.layer_split import in_eval_mode, without
from simtrain.encoders.module_split import FrozenPart, check_halves, example_of, second_half, states_before
from simtrain.encoders.partial_freezing import named_and_rest, parse_from, set_trained, train_parts
from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.settings_file import build_from_settings, check_same_settings, read_settings, write_settings
from simtrain.encoders.stacking import TransformAndStack
from simtrain.encoders.weights_file import load_weights, save_weights
from simtrain.errors import ConfigError, ServableError
from simtrain.registry import encoders

SETTINGS_FILE = "encoder.json"
WEIGHTS_FILE = "weights.safetensors"


@encoders.register_module()
class ModuleEncoder(Encoder):
    """Embeds with a torch module, after an optional transform of each item.

    A frozen module is put into eval mode and its parameters no longer take gradients. The module is used
    as it is, not copied.

    Args:
        module: Takes a collated batch, gives a float tensor of shape ``(batch, embedding_size)``.
        embedding_size: Number of dimensions that the module gives.
        transform: Called with each item before stacking (say, an image to a tensor). Default: items are
            tensors or arrays of one shape. A function from a module can go to loader workers, a lambda only
            where workers are forked.
        trainable: Whether training may change the module. ``"from:NAME"``: its part of that name and all that is
            registered after it are trained, all before is frozen and in eval mode.
        input_shape: Shape of one transformed item. Needed only to cache what the frozen parts give, with
            ``CacheConfig(boundary=...)``.

    Raises:
        ConfigError: ``module`` is not a module, ``embedding_size`` is not a positive integer, or ``trainable`` names
            no part of the module.

    Example:
        >>> import torch
        >>> encoder = ModuleEncoder(nn.Flatten(), embedding_size=4)
        >>> encoder(encoder.get_collate_fn()([torch.zeros(2, 2), torch.ones(2, 2)]))
        tensor([[0., 0., 0., 0.],
                [1., 1., 1., 1.]])
    """

    def __init__(
        self,
        module: nn.Module,
        embedding_size: int,
        transform: Callable[[Any], Any] | None = None,
        trainable: bool | str = False,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise ConfigError(
                f"module must be a torch.nn.Module, got {module!r:.80}; in a config, name a registered subclass of "
                f"ModuleEncoder that builds its own"
            )
        self._embedding_size = positive_size("embedding_size", embedding_size)
        self._transform = transform
        name = parse_from(trainable)
        self._trainable = trainable
        self._input_shape = (
            None if input_shape is None else [positive_size("input_shape", side) for side in input_shape]
        )
        self.module = module
        self._trained = [] if name is None else named_and_rest(module, name)
        if name is not None:
            set_trained(module, self._trained)
        elif not self._trainable:
            self.requires_grad_(False)
        self.train(self.training)

    @property
    def trainable(self) -> bool:
        """Whether training may change some part of the module."""
        return self._trainable is not False

    @property
    def embedding_size(self) -> int:
        """Number of dimensions that the module gives."""
        return self._embedding_size

    def train(self, mode: bool = True) -> ModuleEncoder:
        """Switch to train or eval mode; what is frozen stays in eval mode."""
        if not self._trained:
            super().train(mode and self.trainable)
            return self
        self.training = mode
        train_parts(self.module, self._trained, mode)
        return self

    def get_collate_fn(self) -> CollateFn:
        """Function that transforms and stacks items."""
        return TransformAndStack(self._transform)

    def forward(self, batch: Any) -> Float[Tensor, "batch dim"]:
        """Embed a collated batch.

        Raises:
            ConfigError: The module does not give ``(batch, embedding_size)``.
        """
        return self._checked(self.module(batch))

    def get_state_shape(self) -> tuple[int, ...]:
        """Shape of what the first trained part is given for one item.

        Raises:
            ConfigError: ``input_shape`` was not given.
        """
        with in_eval_mode(self):
            return tuple(self.frozen_part(self._example()).shape[1:])

    def check_split(self) -> None:
        """Raise unless the module's first parts are frozen, and it can be cut before those that are trained.

        Raises:
            ConfigError: ``trainable`` is not ``"from:NAME"``, ``input_shape`` was not given, a weight below the cut
                takes gradients, or more than one tensor is handed over it.
        """
        example = None if isinstance(self._trainable, bool) else self._example()
        check_halves(self, example, "'from:NAME'", self._trainable)

    def frozen_part(self, batch: Any) -> Float[Tensor, "batch ..."]:
        """What the first trained part is given for a collated batch."""
        return states_before(self.module, self._trained[0], batch)

    def trainable_part(self, states: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch dim"]:
        """Run the trained parts; ``trainable_part(frozen_part(batch))`` equals ``forward``."""
        weight = next((p for p in self._trained[0].parameters() if p.is_floating_point()), states)
        return self._checked(second_half(self.module, self._trained[0], states.to(weight.dtype)))

    def frozen_modules(self) -> nn.Module:
        """The frozen parts."""
        return FrozenPart(without(self.module, self._trained), {})

    def _example(self) -> Tensor:
        if self._input_shape is None:
            raise ConfigError(
                "a boundary needs to know what the module takes: give ModuleEncoder(input_shape=...), the shape of one "
                "transformed item"
            )
        return example_of(self._input_shape, self.module)

    def _checked(self, embeddings: Any) -> Float[Tensor, "batch dim"]:
        shape = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
        if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or embeddings.shape[1] != self._embedding_size:
            raise ConfigError(
                f"{type(self.module).__name__} must give a tensor of shape (batch, {self._embedding_size}), as "
                f"embedding_size says, got {shape}; correct embedding_size, or flatten or pool the output"
            )
        return embeddings

    def get_config_dict(self) -> dict[str, Any]:
        """What is embedded with; the names are for reading and comparing, not for building.

        A subclass that builds its own module returns its constructor's arguments here instead.
        """
        return {
            "module": _described(type(self.module)),
            "embedding_size": self._embedding_size,
            "transform": None if self._transform is None else _described(self._transform),
            "trainable": self._trainable,
            **({} if self._input_shape is None else {"input_shape": self._input_shape}),
        }

    def save(self, output_path: str | Path) -> None:
        """Write ``weights.safetensors`` and ``encoder.json`` into an existing folder."""
        save_weights(self.module, Path(output_path) / WEIGHTS_FILE)
        write_settings(Path(output_path) / SETTINGS_FILE, self.get_config_dict())

    def load_weights(self, input_path: str | Path) -> None:
        """Read the weights that :meth:`save` wrote into this encoder's module.

        Raises:
            ServableError: They are missing, damaged or do not fit, or the saved encoder has other settings.
        """
        file = Path(input_path) / SETTINGS_FILE
        check_same_settings(read_settings(file), self.get_config_dict(), type(self).__name__, file)
        load_weights(self.module, Path(input_path) / WEIGHTS_FILE)

    @classmethod
    def load(
        cls,
        input_path: str | Path,
        module: nn.Module | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> ModuleEncoder:
        """Rebuild the encoder from a folder that :meth:`save` wrote.

        Code never comes from files. A subclass whose :meth:`get_config_dict` gives its constructor's
        arguments is rebuilt from those; else the caller gives the module.

        Args:
            input_path: The folder.
            module: A module of the same architecture; the saved weights are read into it.
            transform: The transform of items that the saved encoder had.

        Raises:
            ServableError: There is no module to put the weights into, the transform is missing or another one, or a
                file is missing, damaged or does not fit.
        """
        file = Path(input_path) / SETTINGS_FILE
        settings = read_settings(file)
        if module is not None:
            words = {key: settings.get(key) for key in ("embedding_size", "trainable", "input_shape")}
            encoder = build_from_settings(ModuleEncoder, {**words, "module": module, "transform": transform}, file)
        else:
            encoder = _rebuilt(cls, settings, file)
        encoder.load_weights(input_path)
        return encoder


def _rebuilt(cls: type[ModuleEncoder], settings: dict[str, Any], file: Path) -> ModuleEncoder:
    if "module" in inspect.signature(cls).parameters:
        raise ServableError(
            f"{file.parent} holds the weights of a {settings.get('module')!r}, and no code is loaded from files: "
            f"pass module=... (to SimilarityModel.load encoders={{NAME: ModuleEncoder(...)}}), or save a registered "
            f"subclass of ModuleEncoder that builds its own module"
        )
    return build_from_settings(cls, settings, file)


def _described(thing: Any) -> str:
    name = getattr(thing, "__qualname__", None)
    return f"{thing.__module__}.{name}" if name else f"{type(thing).__module__}.{type(thing).__qualname__}: {thing!r}"
