"""The encoder of images: a vision backbone of any library."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simtrain.encoders.encoder import CollateFn, Encoder
from simtrain.encoders.image_items import looks_like_image
from simtrain.encoders.image_transform import ImageCollate, ImageTransform, built_transform
from simtrain.encoders.partial_freezing import blocks_and_rest, parse_trainable, set_trained, train_parts
from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.settings_file import build_from_settings, check_same_settings, read_settings, write_settings
from simtrain.encoders.vision_backbone import output_size, pooled, without_classifier
from simtrain.encoders.weights_file import load_weights, save_weights
from simtrain.errors import ConfigError, ServableError
from simtrain.registry import encoders

SETTINGS_FILE = "encoder.json"
WEIGHTS_FILE = "weights.safetensors"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@encoders.register_module()
class VisionEncoder(Encoder):
    """Embeds images with a backbone of timm, of torchvision, or any other module, without its classifier.

    Items are PIL images, paths, bytes of image files, uint8 arrays ``(height, width, channels)``, and tensors
    ``(channels, height, width)``, uint8 or float from 0 to 1. They travel to the device as bytes and are normalised
    there. The backbone is copied; the one that is given is left as it is.

    Args:
        backbone: Takes normalised images ``(batch, 3, height, width)``. Its classifier is left out, see
            :func:`~simtrain.encoders.vision_backbone.without_classifier`; feature maps are averaged.
        embedding_size: Number of dimensions. Default: found by running the backbone once.
        transform: Settings of :class:`~simtrain.encoders.image_transform.ImageTransform`, ``{"crop": 1.0}``, say; or a
            function from an item to a tensor, whose uint8 values are normalised and whose float values are taken to
            be so already.
        trainable: ``False``: frozen, always in eval mode. ``True``: all of it is trained. ``"last:N"``: the last N
            blocks and what comes after them are trained, all before them is frozen and in eval mode.
        image_size: Height and width that images are brought to.
        mean: Of each channel, for values from 0 to 1. Default: ImageNet's.
        std: Deviation of each channel.
        keep_head: Whether to leave the backbone as it is, its last layer too.

    Raises:
        ConfigError: The backbone cannot be used, or an argument is wrong.
        MissingExtraError: Pillow is not installed, and ``transform`` is no function of your own.

    Example:
        >>> import numpy as np
        >>> backbone = nn.Sequential(nn.Conv2d(3, 8, kernel_size=4, stride=4), nn.ReLU())
        >>> encoder = VisionEncoder(backbone, image_size=16)
        >>> encoder(encoder.get_collate_fn()([np.zeros((20, 30, 3), np.uint8)])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        backbone: nn.Module,
        embedding_size: int | None = None,
        transform: Callable[[Any], Any] | Mapping[str, Any] | None = None,
        trainable: bool | str = False,
        image_size: int = 224,
        mean: Sequence[float | int] = IMAGENET_MEAN,
        std: Sequence[float | int] = IMAGENET_STD,
        keep_head: bool = False,
    ) -> None:
        super().__init__()
        trained_blocks = parse_trainable(trainable)
        self._transform = built_transform(transform, image_size)
        self._image_size = image_size
        self._mean, self._std = _three("mean", mean), _three("std", std)
        if min(self._std) <= 0:
            raise ConfigError(f"std must be above 0, got {list(std)}")
        self._trainable, self._keep_head = trainable, bool(keep_head)
        self.backbone = without_classifier(backbone, keep=self._keep_head)
        self._described = f"{type(backbone).__module__}.{type(backbone).__qualname__}"
        given = None if embedding_size is None else positive_size("embedding_size", embedding_size)
        self._embedding_size = output_size(self.backbone, image_size) if given is None else given
        self._trained = _trained_parts(self.backbone, trained_blocks)
        set_trained(self.backbone, self._trained)
        # Neither buffers, which a cast of the model would round, nor copied from the host for each batch.
        self._placed: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self.train(self.training)

    @property
    def trainable(self) -> bool:
        """Whether training may change some part of the backbone."""
        return self._trainable is not False

    @property
    def embedding_size(self) -> int:
        """Number of dimensions of one embedding."""
        return self._embedding_size

    def train(self, mode: bool = True) -> VisionEncoder:
        """Switch to train or eval mode; what is frozen stays in eval mode."""
        self.training = mode and self.trainable
        train_parts(self.backbone, self._trained, mode)
        return self

    def get_collate_fn(self) -> CollateFn:
        """Function from images to a uint8 tensor ``(batch, 3, height, width)``, for loader workers."""
        return ImageCollate(self._transform)

    def forward(self, batch: Tensor) -> Float[Tensor, "batch dim"]:
        """Embed images.

        Args:
            batch: Shape ``(batch, 3, height, width)``; uint8 values are normalised, float values are not.

        Returns:
            Embeddings, shape ``(batch, embedding_size)``.

        Raises:
            ConfigError: The backbone gives another number of dimensions.
        """
        if not len(batch):
            return torch.zeros(0, self._embedding_size, device=batch.device)
        embeddings = pooled(self.backbone(self._normalized(batch)))
        if embeddings.shape[1] != self._embedding_size:
            raise ConfigError(
                f"{type(self.backbone).__name__} gives {embeddings.shape[1]} dimensions, not the "
                f"{self._embedding_size} of embedding_size; correct it, or leave it out to have it found"
            )
        return embeddings

    def is_one_item(self, inputs: Any) -> bool:
        """Whether an array or tensor has the shape of one image; not asked of a ``transform`` that is a function."""
        return isinstance(self._transform, ImageTransform) and looks_like_image(inputs)

    def get_config_dict(self) -> dict[str, Any]:
        """What is embedded with; the names are for reading and comparing, not for building.

        A subclass that builds its own backbone returns its constructor's arguments here instead.
        """
        is_own = isinstance(self._transform, ImageTransform)
        settings = asdict(self._transform) if isinstance(self._transform, ImageTransform) else {}
        settings.pop("image_size", None)
        return {
            "backbone": self._described,
            "embedding_size": self._embedding_size,
            "transform": settings if is_own else _name_of(self._transform),
            "trainable": self._trainable,
            "image_size": self._image_size,
            "mean": list(self._mean),
            "std": list(self._std),
            "keep_head": self._keep_head,
        }

    def save(self, output_path: str | Path) -> None:
        """Write ``weights.safetensors`` and ``encoder.json`` into an existing folder."""
        save_weights(self.backbone, Path(output_path) / WEIGHTS_FILE)
        write_settings(Path(output_path) / SETTINGS_FILE, self.get_config_dict())

    def load_weights(self, input_path: str | Path) -> None:
        """Read the weights that :meth:`save` wrote into this encoder's backbone.

        Raises:
            ServableError: They are missing, damaged or do not fit, or the saved encoder has other settings: another
                size of images, say.
        """
        file = Path(input_path) / SETTINGS_FILE
        check_same_settings(read_settings(file), self.get_config_dict(), type(self).__name__, file)
        load_weights(self.backbone, Path(input_path) / WEIGHTS_FILE)

    @classmethod
    def load(
        cls,
        input_path: str | Path,
        backbone: nn.Module | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> VisionEncoder:
        """Rebuild the encoder from a folder that :meth:`save` wrote.

        Code never comes from files. A subclass whose :meth:`get_config_dict` gives its constructor's
        arguments is rebuilt from those; else the caller gives the backbone.

        Args:
            input_path: The folder.
            backbone: One of the same architecture, with its classifier or without; the saved weights are read into a
                copy of it.
            transform: The function that the saved encoder had as its transform, if it had one.

        Raises:
            ServableError: There is no backbone to put the weights into, the transform is missing, or a file is
                missing, damaged or does not fit.
        """
        file = Path(input_path) / SETTINGS_FILE
        settings = read_settings(file)
        if backbone is not None:
            settings = {**settings, "backbone": backbone, "transform": _saved_transform(settings, transform, file)}
            encoder = build_from_settings(VisionEncoder, settings, file)
        elif "backbone" in inspect.signature(cls).parameters:
            raise ServableError(
                f"{file.parent} holds the weights of a {settings.get('backbone')!r}, and no code is loaded from files: "
                f"pass backbone=... (to SimilarityModel.load encoders={{NAME: VisionEncoder(...)}}), or save a "
                f"registered subclass of VisionEncoder that builds its own backbone"
            )
        else:
            encoder = build_from_settings(cls, settings, file)
        encoder.load_weights(input_path)
        return encoder

    def _normalized(self, images: Tensor) -> Tensor:
        weight = next((p for p in self.backbone.parameters() if p.is_floating_point()), torch.empty(0))
        if images.dtype != torch.uint8:
            return images.to(weight.dtype)
        if images.device not in self._placed:
            scales = (torch.tensor(values).view(3, 1, 1) * 255 for values in (self._mean, self._std))
            mean, std = (scale.to(images.device) for scale in scales)
            self._placed[images.device] = (mean, std)
        mean, std = self._placed[images.device]
        return ((images.float() - mean) / std).to(weight.dtype)


def _three(name: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
        raise ConfigError(f"{name} must be three numbers, one for each channel, got {values!r:.80}")
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be three numbers, one for each channel, got {values!r:.80}") from error


def _trained_parts(backbone: nn.Module, count: int | None) -> list[nn.Module]:
    if count is None:
        return [backbone]
    return blocks_and_rest(backbone, count) if count else []


def _name_of(function: Any) -> str:
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else f"{type(function).__module__}.{type(function).__qualname__}"


def _saved_transform(settings: Mapping[str, Any], given: Any, file: Path) -> Any:
    saved = settings.get("transform")
    if given is None and isinstance(saved, str):
        raise ServableError(f"{file} was saved with the transform {saved!r}; pass transform=...")
    return saved if given is None else given
