"""The preprocessing of images before they go to the device: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from simtrain.encoders.image_items import read_image
from simtrain.encoders.item_error import ItemError
from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.stacking import stack_items
from simtrain.errors import ConfigError, DataError, import_extra, nearest

#: The filters of Pillow that are meant for photos, by the names in use elsewhere.
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos")
_SETTINGS = ("crop", "interpolation")


@dataclass(frozen=True)
class ImageTransform:
    """Cuts the middle square out of an image and brings it to one size.

    Args:
        image_size: Height and width of the result.
        crop: Side of the square, as a share of the image's shorter side.
        interpolation: ``"bicubic"``, ``"bilinear"`` or ``"lanczos"``, each with antialiasing.

    Raises:
        ConfigError: An argument is wrong.

    Example:
        >>> ImageTransform(4)(np.full((30, 20, 3), 200, np.uint8)).shape
        torch.Size([3, 4, 4])
    """

    image_size: int = 224
    crop: float | int = 0.875
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        positive_size("image_size", self.image_size)
        if isinstance(self.crop, bool) or not isinstance(self.crop, (int, float)) or not 0 < self.crop <= 1:
            raise ConfigError(f"crop must be above 0 and at most 1, got {self.crop!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise ConfigError(
                f"unknown interpolation {self.interpolation!r}; {nearest(str(self.interpolation), INTERPOLATIONS)}"
            )

    def __call__(self, item: Any) -> UInt8[Tensor, "3 height width"]:
        """Read and resize an image.

        Args:
            item: See :func:`~simtrain.encoders.image_items.read_image`.

        Returns:
            Shape ``(3, image_size, image_size)``, uint8.

        Raises:
            DataError: It cannot be read.
        """
        image = read_image(item)
        side = max(1.0, min(image.size) * self.crop)
        left, top = ((length - side) / 2 for length in image.size)
        resampling = getattr(import_extra("PIL.Image", "vision").Resampling, self.interpolation.upper())
        size = (self.image_size, self.image_size)
        # The square alone is resized: of a panorama, resizing all would need its length squared.
        square = image.resize(size, resampling, box=(left, top, left + side, top + side))
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class ImageCollate:
    """Collate function that transforms and stacks images.

    Args:
        transform: From an item to a tensor.
    """

    transform: Callable[[Any], Any]

    def __call__(self, items: Sequence[Any]) -> Any:
        """Stack transformed items.

        Raises:
            ItemError: An item cannot be read, or differs from the first in its shape.
        """
        if not items and isinstance(self.transform, ImageTransform):
            return torch.empty(0, 3, self.transform.image_size, self.transform.image_size, dtype=torch.uint8)
        return stack_items([self._transformed(position, item) for position, item in enumerate(items)])

    def _transformed(self, position: int, item: Any) -> Any:
        try:
            return self.transform(item)
        except DataError as error:
            raise ItemError(position, str(error)) from error


def built_transform(transform: Any, image_size: int) -> Callable[[Any], Any]:
    """A user's own function as it is, or an :class:`ImageTransform` from settings without ``image_size``, or None.

    Raises:
        ConfigError: It is none of these, or a setting is unknown or wrong.
        MissingExtraError: Pillow is not installed, and there is no function of the user's own.
    """
    positive_size("image_size", image_size)
    if callable(transform):
        return transform  # type: ignore[no-any-return]
    if transform is not None and not isinstance(transform, Mapping):
        raise ConfigError(f"transform must be a function or settings of ImageTransform, got {transform!r:.80}")
    for word in transform or ():
        if word not in _SETTINGS:
            raise ConfigError(f"transform has no setting {word!r}; {nearest(str(word), _SETTINGS)}")
    import_extra("PIL.Image", "vision")
    return ImageTransform(image_size, **(transform or {}))
