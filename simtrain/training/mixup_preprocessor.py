"""Mixup: training on blends of two samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from simtrain import registry
from simtrain.encoders.positive_size import positive_size
from simtrain.errors import ConfigError, ContractError, DataError
from simtrain.training.data_preprocessor import BaseDataPreprocessor


@registry.preprocessors.register_module()
class MixUpDataPreprocessor(BaseDataPreprocessor):
    """In training, blends every sample of a batch with another one, and their labels likewise.

    ``lam * x + (1 - lam) * x[order]``, with one ``lam ~ Beta(alpha, alpha)`` and one random order for the batch. Both
    come from torch's own generator on the CPU: a seed gives the same blends on every device, and a resumed run goes
    on with the blends that it would have had. Outside training the batch is moved only, and labels stay class numbers.

    Args:
        num_classes: Number of classes; labels lie in ``[0, num_classes)``.
        alpha: Strength, above 0: small values give blends that are nearly one of the two samples.
        non_blocking: Let copies from pinned memory overlap with computing.

    Raises:
        ConfigError: An argument is out of its range.

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.

    Example:
        >>> preprocessor = MixUpDataPreprocessor(num_classes=2)
        >>> inputs, labels = preprocessor((torch.eye(2), torch.tensor([0, 1])), training=True)
        >>> torch.equal(inputs, labels), labels.sum(dim=1).tolist()
        (True, [1.0, 1.0])
        >>> preprocessor((torch.eye(2), torch.tensor([0, 1])), training=False)[1]
        tensor([0, 1])
    """

    def __init__(self, num_classes: int, alpha: float | int = 1.0, non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        self.num_classes = positive_size("num_classes", num_classes)
        if not 0 < alpha < math.inf:
            raise ConfigError(f"alpha should be a finite number above 0, got {alpha}; to mix nothing, leave mixup out")
        self.alpha = alpha

    def forward(self, data: Any, training: bool = False) -> Any:
        """Move a batch, and blend it where it is to be trained on.

        Args:
            data: ``(inputs, labels)`` as a tuple or list, or a dict with ``inputs`` and ``data_samples``. Inputs are
                a tensor ``(batch, ...)``; labels an integer tensor ``(batch,)``, or a list of numbers or of tensors
                with one number each.
            training: Blend.

        Returns:
            The same kind of container. In training, inputs are floating and labels ``(batch, num_classes)``.

        Raises:
            ContractError: The batch is none of these.
            DataError: There is not one label for each input, or a label is out of range.
        """
        if not training:
            return self.cast_data(data)
        inputs, labels = _fields(data)
        # Checked before they are moved, where they come from a loader: reading them on a device would make the host
        # wait for it.
        labels = _class_numbers(labels, len(inputs), self.num_classes)
        moved = self.cast_data(data)
        return _refilled(moved, *self._mixed(_fields(moved)[0], self.cast_data(labels)))

    def _mixed(
        self, inputs: Shaped[Tensor, "batch ..."], labels: Integer[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch classes"]]:
        lam = float(torch.distributions.Beta(*torch.tensor([self.alpha, self.alpha], dtype=torch.float64)).sample())
        order = torch.randperm(len(inputs)).to(inputs.device, non_blocking=True)
        if not inputs.is_floating_point():
            inputs = inputs.to(self.dtype)
        shares = F.one_hot(labels.long(), self.num_classes).to(self.dtype)
        return mix(inputs, order, lam), mix(shares, order, lam)

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return f"num_classes={self.num_classes}, alpha={self.alpha}"


def mix(values: Float[Tensor, "batch ..."], order: Integer[Tensor, " batch"], lam: float) -> Float[Tensor, "batch ..."]:
    """Blend every row with the one that ``order`` gives it, ``lam`` being its own share.

    Example:
        >>> mix(torch.tensor([0.0, 8.0]), torch.tensor([1, 0]), 0.75)
        tensor([2., 6.])
    """
    return torch.lerp(values[order], values, lam)


def _fields(data: Any) -> tuple[Tensor, Any]:
    if isinstance(data, Mapping):
        missing = [name for name in ("inputs", "data_samples") if data.get(name) is None]
        if missing:
            raise DataError(f"mixup needs 'inputs' and 'data_samples', the batch has no {' and no '.join(missing)}")
        inputs, labels = data["inputs"], data["data_samples"]
    elif isinstance(data, (tuple, list)):
        if len(data) != 2:
            raise DataError(f"mixup takes batches of two fields, inputs and labels, got {len(data)}")
        inputs, labels = data
    else:
        raise ContractError(
            f"mixup takes a batch (inputs, labels) or a dict with 'inputs' and 'data_samples', "
            f"got a {type(data).__name__}"
        )
    if not isinstance(inputs, Tensor) or inputs.ndim == 0:
        given = "a single number" if isinstance(inputs, Tensor) else f"a {type(inputs).__name__}"
        raise ContractError(
            f"mixup blends the rows of one tensor, got {given}; put an ImageDataPreprocessor before it to stack images"
        )
    return inputs, labels


def _class_numbers(labels: Any, count: int, num_classes: int) -> Integer[Tensor, " batch"]:
    numbers = labels if isinstance(labels, Tensor) else _listed(labels)
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype is torch.bool:
        raise DataError(f"labels are class numbers, that is integers, got {numbers.dtype}")
    if numbers.shape != (count,):
        raise DataError(f"{count} inputs need labels of the shape ({count},), got {tuple(numbers.shape)}")
    outside = (numbers < 0) | (numbers >= num_classes)
    if outside.any():
        wrong = int(numbers[outside][0])
        raise DataError(
            f"labels should lie in [0, {num_classes}), got {wrong}; set num_classes to the number of classes"
        )
    return numbers


def _listed(labels: Any) -> Tensor:
    if not isinstance(labels, Sequence) or isinstance(labels, (str, bytes)):
        raise ContractError(f"labels are an integer tensor or a list of integers, got a {type(labels).__name__}")
    for label in labels:
        if not isinstance(label, (int, Tensor)) or (isinstance(label, Tensor) and label.numel() != 1):
            given = f"the shape {tuple(label.shape)}" if isinstance(label, Tensor) else f"a {type(label).__name__}"
            raise ContractError(f"each label in a list should be one integer, got {given}")
    numbers = [label.reshape(()) if isinstance(label, Tensor) else torch.tensor(label) for label in labels]
    return torch.stack(numbers) if numbers else torch.empty(0, dtype=torch.int64)


def _refilled(data: Any, inputs: Tensor, labels: Tensor) -> Any:
    if isinstance(data, dict):
        return {**data, "inputs": inputs, "data_samples": labels}
    return data._make((inputs, labels)) if hasattr(data, "_make") else type(data)((inputs, labels))
