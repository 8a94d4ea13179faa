"""What happens to a batch between the loader and the model: moving it, naming its fields, chains of such steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from simtrain import registry
from simtrain.data.transfer import move_to
from simtrain.errors import ConfigError, ContractError, DataError, nearest


@registry.preprocessors.register_module()
class BaseDataPreprocessor(nn.Module):
    """Moves a batch of any nesting to the device of the model that it belongs to.

    Subclasses override :meth:`forward`: they move first, while the data are small, and compute on the device.

    Args:
        non_blocking: Let copies from pinned memory overlap with computing.

    Example:
        >>> model = nn.Sequential(BaseDataPreprocessor(), nn.Linear(2, 1)).to("meta")
        >>> model[0]({"x": torch.ones(2), "name": "a"})["x"].device
        device(type='meta')
    """

    anchor: Tensor

    def __init__(self, non_blocking: bool = False) -> None:
        super().__init__()
        self.non_blocking = non_blocking
        # An empty buffer goes wherever an enclosing module goes, and is part of no checkpoint.
        self.register_buffer("anchor", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where batches are moved to."""
        return self.anchor.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of computed values: that of the enclosing model, if it was cast as a whole."""
        return self.anchor.dtype

    def cast_data(self, data: Any) -> Any:
        """Move every tensor of a nested batch; nothing else about it changes."""
        return move_to(data, self.device, self.non_blocking)

    def forward(self, data: Any, training: bool = False) -> Any:
        """Prepare a batch for the model.

        Args:
            data: What the loader gave.
            training: The batch is to be trained on: augmentation is due.
        """
        return self.cast_data(data)


@registry.preprocessors.register_module()
class NamedFieldsPreprocessor(BaseDataPreprocessor):
    """Gives names to the fields of a tuple, so that loader and model fit without either being changed.

    A batch that is a dict already is checked to have these fields, and moved.

    Args:
        fields: The names, in the order of the tuple; the model's ``forward`` takes them as keywords.
        non_blocking: Let copies from pinned memory overlap with computing.

    Raises:
        ConfigError: ``fields`` is empty, names a field twice, or is no sequence of names.

    Example:
        >>> NamedFieldsPreprocessor(["inputs", "data_samples"])((torch.ones(1), ["cat"]))
        {'inputs': tensor([1.]), 'data_samples': ['cat']}
    """

    def __init__(self, fields: Sequence[str], non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        self.fields = _checked_names(fields)

    def forward(self, data: Any, training: bool = False) -> dict[str, Any]:
        """Name the fields of a batch, and move it.

        Raises:
            ContractError: The batch is neither a tuple, a list nor a dict.
            DataError: It has another number of fields, or lacks one.
        """
        return self.cast_data(self._named(data))  # type: ignore[no-any-return]

    def _named(self, data: Any) -> Mapping[str, Any]:
        if isinstance(data, Mapping):
            for name in self.fields:
                if name not in data:
                    raise DataError(f"the batch has no field {name!r}; {nearest(name, map(str, data))}")
            return data
        if not isinstance(data, (tuple, list)):
            raise ContractError(
                f"NamedFieldsPreprocessor takes a batch that is a tuple, a list or a dict, got a {type(data).__name__}"
            )
        if len(data) != len(self.fields):
            raise DataError(
                f"the batch has {len(data)} fields, {len(self.fields)} are named: {', '.join(map(repr, self.fields))}; "
                f"name every field of the loader's batches"
            )
        return dict(zip(self.fields, data, strict=True))

    def extra_repr(self) -> str:
        """The names, for ``print(model)``."""
        return ", ".join(self.fields)


@registry.preprocessors.register_module()
class ComposedDataPreprocessor(BaseDataPreprocessor):
    """Moves the batch, then applies preprocessors one after another.

    Args:
        preprocessors: Modules that are called ``module(batch, training=...)``, or their configs.
        non_blocking: Let copies from pinned memory overlap with computing.

    Raises:
        ConfigError: One of them is neither a module nor the config of a known preprocessor.

    Example:
        >>> names = {"type": "NamedFieldsPreprocessor", "fields": ["x", "y"]}
        >>> ComposedDataPreprocessor([names, BaseDataPreprocessor()])([torch.ones(1), 2], training=True)
        {'x': tensor([1.]), 'y': 2}
    """

    def __init__(self, preprocessors: Sequence[nn.Module | Mapping[str, Any]], non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        self.preprocessors = nn.ModuleList(_built(preprocessor) for preprocessor in preprocessors)

    def forward(self, data: Any, training: bool = False) -> Any:
        """What the last preprocessor gives; without any, the batch is moved only."""
        data = self.cast_data(data)
        for preprocessor in self.preprocessors:
            data = preprocessor(data, training=training)
        return data


def _built(preprocessor: nn.Module | Mapping[str, Any]) -> nn.Module:
    if isinstance(preprocessor, nn.Module):
        return preprocessor
    built: nn.Module = registry.preprocessors.build(preprocessor)
    return built


def _checked_names(fields: Sequence[str]) -> tuple[str, ...]:
    if isinstance(fields, str) or not all(isinstance(name, str) for name in fields):
        raise ConfigError(f"fields should be a list of names, such as ['inputs', 'data_samples'], got {fields!r}")
    if not fields:
        raise ConfigError("fields should name at least one field, got none")
    if len(set(fields)) < len(fields):
        raise ConfigError(f"fields should name every field once, got {list(fields)!r}")
    return tuple(fields)
