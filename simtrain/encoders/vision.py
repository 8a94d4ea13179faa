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
from simtrain.encoders.layer_split import in_eval_mode, without
from simtrain.encoders.module_split import FrozenPart, check_halves, example_of, second_half, states_before
from simtrain.encoders.partial_freezing import parse_trainable, set_trained, train_parts
from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.settings_file import build_from_settings, check_same_settings, read_settings, write_settings
from simtrain.encoders.vision_backbone import output_size, pooled, without_classifier
from simtrain.encoders.vision_settings import name_of, no_backbone, saved_transform, three_numbers, trained_blocks
from simtrain.encoders.weights_file import load_weights, save_weights
from simtrain.errors import ConfigError
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

    # Copies of the mean and deviation on each device are made when they are first needed.
    cache_ignores = frozenset({"_placed"})

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
        n_trained = parse_trainable(trainable)
        self._transform = built_transform(transform, image_size)
        self._image_size = image_size
        self._mean, self._std = three_numbers("mean", mean), three_numbers("std", std)
        if min(self._std) <= 0:
            raise ConfigError(f"std must be above 0, got {list(std)}")
        self._trainable, self._keep_head = trainable, bool(keep_head)
        self.backbone = without_classifier(backbone, keep=self._keep_head)
        self._described = f"{type(backbone).__module__}.{type(backbone).__qualname__}"
        given = None if embedding_size is None else positive_size("embedding_size", embedding_size)
        self._embedding_size = output_size(self.backbone, image_size) if given is None else given
        self._trained = trained_blocks(self.backbone, n_trained)
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

    def get_state_shape(self) -> tuple[int, ...]:
        """Shape of what the first trained block is given for one image."""
        with in_eval_mode(self):
            return tuple(self.frozen_part(self._example()).shape[1:])

    def check_split(self) -> None:
        """Raise unless the backbone's first blocks are frozen, and it can be cut before those that are trained.

        Raises:
            ConfigError: ``trainable`` is not ``"last:N"``, a weight below the cut takes gradients, or more than one
                tensor is handed over it.
        """
        check_halves(self, self._example(), "'last:N'", self._trainable)

    def frozen_part(self, batch: Tensor) -> Float[Tensor, "batch ..."]:
        """What the first trained block is given for a collated batch."""
        return states_before(self.backbone, self._trained[0], self._normalized(batch))

    def trainable_part(self, states: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch dim"]:
        """Run the trained blocks and pool; ``trainable_part(frozen_part(batch))`` equals ``forward``."""
        weight = next((p for p in self._trained[0].parameters() if p.is_floating_point()), states)
        return pooled(second_half(self.backbone, self._trained[0], states.to(weight.dtype)))

    def frozen_modules(self) -> nn.Module:
        """The frozen blocks, with the means and deviations that images are normalised with."""
        return FrozenPart(without(self.backbone, self._trained), {"mean": list(self._mean), "std": list(self._std)})

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
            "transform": settings if is_own else name_of(self._transform),
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
            settings = {**settings, "backbone": backbone, "transform": saved_transform(settings, transform, file)}
            encoder = build_from_settings(VisionEncoder, settings, file)
        elif "backbone" in inspect.signature(cls).parameters:
            raise no_backbone(settings, file)
        else:
            encoder = build_from_settings(cls, settings, file)
        encoder.load_weights(input_path)
        return encoder

    def _example(self) -> Tensor:
        return example_of((3, self._image_size, self._image_size), self.backbone, torch.uint8)

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
