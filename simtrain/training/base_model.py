"""The smallest contract of a model that a loop can train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn


class BaseModel(nn.Module, ABC):
    """A model with one step for each stage of training.

    A subclass implements :meth:`train_step`, :meth:`valid_step`, :meth:`test_step` and :meth:`compute_loss`.
    ``val_step`` and ``valid_step`` are two names of one method: a subclass may override either.

    Example:
        >>> import torch
        >>> class Line(BaseModel):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.linear = nn.Linear(2, 1)
        ...     def compute_loss(self, x, y):
        ...         return {"loss": nn.functional.mse_loss(self.linear(x), y)}
        ...     def train_step(self, batch):
        ...         return self.compute_loss(**batch)
        ...     valid_step = test_step = train_step
        >>> "loss" in Line().train_step({"x": torch.ones(3, 2), "y": torch.ones(3, 1)})
        True
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "val_step" in cls.__dict__ and "valid_step" not in cls.__dict__:
            cls.valid_step = cls.__dict__["val_step"]  # type: ignore[method-assign]
        elif "valid_step" in cls.__dict__ and "val_step" not in cls.__dict__:
            cls.val_step = cls.__dict__["valid_step"]  # type: ignore[method-assign]

    @abstractmethod
    def train_step(self, data_batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Process a training batch; the returned dict holds a scalar ``loss`` with its graph."""

    @abstractmethod
    def valid_step(self, data_batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Process a validation batch; the returned dict holds whatever evaluation needs."""

    def val_step(self, data_batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The other name of :meth:`valid_step`."""
        return self.valid_step(data_batch, *args, **kwargs)

    @abstractmethod
    def test_step(self, data_batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Process a test batch; the returned dict holds whatever evaluation needs."""

    @abstractmethod
    def compute_loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Compute a dict that holds a scalar ``loss``; shared by the steps."""
