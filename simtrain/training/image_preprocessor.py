"""From raw images to one normalised tensor, on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from simtrain import registry
from simtrain.encoders.positive_size import positive_size
from simtrain.errors import ConfigError, ContractError, DataError
from simtrain.training.data_preprocessor import BaseDataPreprocessor


@registry.preprocessors.register_module()
class ImageDataPreprocessor(BaseDataPreprocessor):
    """Moves images as they are, bytes for the most part, then normalises, pads and stacks them on the device.

    A batch is a dict. Its ``inputs`` are one tensor ``(batch, channel, height, width)``, or a list of images
    ``(channel, height, width)`` of any sizes, which are padded right and below to the largest. ``data_samples`` is
    set to None where it is missing; other fields are kept. The order: move, flip channels, convert to floating point,
    subtract ``mean``, divide by ``std``, pad, stack. Values are computed in float32 at least, and given in the dtype
    of the preprocessor, that is, of the model that it is part of.

    Args:
        mean: One value, or one for each of three channels, on the scale of the images; needs ``std``.
        std: The same for the deviation, above 0; needs ``mean``.
        pad_size_divisor: Height and width are padded to a multiple of it.
        pad_value: What padding is filled with, on the scale of the normalised values.
        bgr_to_rgb: Reverse the three channels.
        rgb_to_bgr: The same, for models that want it the other way round.
        non_blocking: Let copies from pinned memory overlap with computing.

    Raises:
        ConfigError: An argument is out of its range, or two of them do not go together.

    Example:
        >>> preprocessor = ImageDataPreprocessor(mean=[127.5], std=[127.5], pad_size_divisor=4)
        >>> images = [torch.full((3, 2, 5), 255, dtype=torch.uint8), torch.zeros(3, 3, 4, dtype=torch.uint8)]
        >>> batch = preprocessor({"inputs": images})
        >>> batch["inputs"].shape, batch["inputs"][:, 0, 0, 0].tolist(), batch["data_samples"]
        (torch.Size([2, 3, 4, 8]), [1.0, -1.0], None)
    """

    def __init__(
        self,
        mean: Sequence[float | int] | None = None,
        std: Sequence[float | int] | None = None,
        pad_size_divisor: int = 1,
        pad_value: float | int = 0,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        if bgr_to_rgb and rgb_to_bgr:
            raise ConfigError("bgr_to_rgb and rgb_to_bgr undo each other; set at most one of them")
        self._flip = bgr_to_rgb or rgb_to_bgr
        self._divisor = positive_size("pad_size_divisor", pad_size_divisor)
        self._pad_value = pad_value
        self._statistics = _checked_statistics(mean, std)
        # Neither buffers, which a cast of the model would round to its dtype, nor copied from the host at each batch.
        self._placed: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def forward(self, data: Any, training: bool = False) -> dict[str, Any]:
        """Prepare a batch of images.

        Returns:
            The batch as a dict, ``inputs`` a floating tensor ``(batch, channel, height, width)``.

        Raises:
            ContractError: The batch is no dict with ``inputs``, or these are no tensors.
            DataError: The images have wrong shapes, or there are none.
        """
        _check_batch(data)
        batch = self.cast_data(data)
        batch["inputs"] = self._prepared(batch["inputs"])
        batch.setdefault("data_samples", None)
        return batch  # type: ignore[no-any-return]

    def _prepared(self, inputs: Tensor | Sequence[Tensor]) -> Float[Tensor, "batch channel height width"]:
        if isinstance(inputs, Tensor):
            return self._padded(self._normalized(inputs), *inputs.shape[-2:])
        height, width = (max(image.shape[axis] for image in inputs) for axis in (-2, -1))
        return torch.stack([self._padded(self._normalized(image), height, width) for image in inputs])

    def _normalized(self, images: Shaped[Tensor, "*batch channel height width"]) -> Tensor:
        self._check_channels(images)
        if self._flip:
            images = images.flip(-3)
        if self._statistics is None:
            return images.to(self.dtype)
        precise = torch.promote_types(self.dtype, torch.float32)
        mean, std = self._statistics_in(precise).unbind()
        return ((images.to(precise) - mean) / std).to(self.dtype)

    def _padded(self, images: Tensor, height: int, width: int) -> Tensor:
        below, right = (
            math.ceil(wanted / self._divisor) * self._divisor - given
            for wanted, given in zip((height, width), images.shape[-2:], strict=True)
        )
        return F.pad(images, (0, right, 0, below), value=self._pad_value) if below or right else images

    def _statistics_in(self, dtype: torch.dtype) -> Tensor:
        placed = self._placed.get((self.device, dtype))
        if placed is None:
            # A tensor made in inference mode, by a validation that comes first, is of no use to training.
            with torch.inference_mode(False):
                placed = torch.tensor(self._statistics, dtype=dtype, device=self.device).reshape(2, -1, 1, 1)
            self._placed[self.device, dtype] = placed
        return placed

    def _check_channels(self, images: Tensor) -> None:
        channels = images.shape[-3]
        if self._flip and channels != 3:
            raise DataError(f"only images of 3 channels can be turned from RGB to BGR or back, got {channels} channels")
        if self._statistics is not None and len(self._statistics[0]) not in (1, channels):
            raise DataError(
                f"mean and std have {len(self._statistics[0])} values each, the images {channels} channels; "
                f"give one value for all channels, or other images"
            )


def _checked_statistics(
    mean: Sequence[float | int] | None, std: Sequence[float | int] | None
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise ConfigError(f"mean and std go together; give both or neither, got mean={mean!r} and std={std!r}")
    if len(mean) != len(std) or len(mean) not in (1, 3):
        raise ConfigError(
            f"mean and std should have 1 or 3 values, and both as many, got {len(mean)} and {len(std)} values"
        )
    if not all(math.isfinite(value) for value in mean):
        raise ConfigError(f"mean should hold finite numbers, got {list(mean)}")
    if not all(0 < value < math.inf for value in std):
        raise ConfigError(f"std should hold finite numbers above 0, got {list(std)}")
    return tuple(map(float, mean)), tuple(map(float, std))


def _check_batch(data: Any) -> None:
    if not isinstance(data, Mapping):
        raise ContractError(
            f"ImageDataPreprocessor takes a batch that is a dict with 'inputs', got a {type(data).__name__}; "
            f"put a NamedFieldsPreprocessor before it"
        )
    if "inputs" not in data:
        raise ContractError(
            f"ImageDataPreprocessor takes a batch with 'inputs', got the fields {sorted(map(str, data))}"
        )
    inputs = data["inputs"]
    if isinstance(inputs, Tensor):
        if inputs.ndim != 4:
            raise DataError(
                f"a tensor of images has the shape (batch, channel, height, width), got {tuple(inputs.shape)}"
            )
    elif isinstance(inputs, (list, tuple)):
        _check_images(inputs)
    else:
        raise ContractError(f"'inputs' should be a tensor or a list of tensors, got a {type(inputs).__name__}")


def _check_images(images: Sequence[Any]) -> None:
    if not images:
        raise DataError("'inputs' is an empty list: a batch needs at least one image")
    for number, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise ContractError(f"image {number} of the batch should be a tensor, got a {type(image).__name__}")
        if image.ndim != 3:
            raise DataError(
                f"image {number} of the batch should have the shape (channel, height, width), got {tuple(image.shape)}"
            )
    counts = sorted({image.shape[0] for image in images})
    if len(counts) > 1:
        raise DataError(f"the images of a batch should have one number of channels, got {counts}")
