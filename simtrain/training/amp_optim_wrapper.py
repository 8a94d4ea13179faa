"""The optimizer wrapper for mixed precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from simtrain.errors import ConfigError, nearest
from simtrain.training.optim_wrapper import OptimWrapper

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_SCALER_WORDS = ("init_scale", "growth_factor", "backoff_factor", "growth_interval")


class AmpOptimWrapper(OptimWrapper):
    """Runs the forward pass in 16 bits, and keeps small float16 gradients from vanishing by scaling the loss.

    Weights, gradients and the optimizer's state stay in float32. bfloat16 has the range of float32: nothing is scaled.
    The device is that of the parameters: build the wrapper once the model is on it. A step whose gradients overflowed
    is left out, with its gradients, and ``n_updates`` does not count it; only optimizers that skip inside a fused
    kernel (``fused=True``) count it, as asking the device would make the host wait.

    Args:
        optimizer: Whose parameters are updated.
        dtype: ``float16`` or ``bfloat16``, by name or as torch's; default: what torch prefers on the device.
        loss_scale: ``dynamic`` finds the largest scale that does not overflow; a number is kept as it is; a dict gives
            arguments of :class:`torch.amp.GradScaler`.
        accumulative_counts: See :class:`OptimWrapper`.
        clip_grad: See :class:`OptimWrapper`; it sees gradients as they are without the scale.

    Attributes:
        dtype: Number format of the forward pass.
        scaler: The :class:`torch.amp.GradScaler`, switched off for bfloat16.

    Raises:
        ConfigError: A setting is unknown or out of its range, or the weights themselves are in float16.

    Reference:
        Micikevicius et al., "Mixed Precision Training", ICLR 2018.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> wrapper = AmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), dtype="bfloat16")
        >>> with wrapper.optim_context(model):
        ...     outputs = model(torch.ones(3, 2))
        >>> wrapper.update_params(outputs.float().square().mean())
        >>> outputs.dtype, model.weight.dtype
        (torch.bfloat16, torch.float32)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        dtype: str | torch.dtype | None = None,
        loss_scale: str | float | int | Mapping[str, Any] = "dynamic",
        accumulative_counts: int = 1,
        clip_grad: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(optimizer, accumulative_counts, clip_grad)
        self.dtype = _checked_dtype(dtype, self.device_type)
        settings = _scaler_settings(loss_scale)
        self._fixed_scale = None if loss_scale == "dynamic" or isinstance(loss_scale, Mapping) else float(loss_scale)
        scales = self.dtype is torch.float16
        if scales and any(parameter.dtype is torch.float16 for parameter in self._parameters()):
            raise ConfigError("mixed precision keeps the weights in float32, these are in float16; leave out .half()")
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=scales, **settings)

    @property
    def device_type(self) -> str:
        """Kind of device that the parameters are on: ``cuda``, ``cpu``, ..."""
        return self._parameters()[0].device.type

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Where the forward pass and the loss of a batch belong: they run in :attr:`dtype` where that is safe."""
        with super().optim_context(model), torch.autocast(self.device_type, dtype=self.dtype):
            yield

    def backward(self, loss: Tensor) -> None:
        """Backward pass of the loss times the scale."""
        super().backward(self.scaler.scale(loss))

    def clip(self) -> None:
        """Take the scale out of the gradients, then clip them."""
        if self.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            super().clip()

    def step(self, **kwargs: Any) -> None:
        """Clip, step unless a gradient overflowed, and adapt the scale."""
        if all(parameter.grad is None for parameter in self._parameters()):
            # The scaler takes the absence of gradients for a mistake in the order of calls.
            self.optimizer.step(**kwargs)
            return
        self.clip()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update(self._fixed_scale)

    def state_dict(self) -> dict[str, Any]:
        """What :class:`OptimWrapper` gives, and under ``loss_scaler`` the scale."""
        return {**super().state_dict(), "loss_scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state; without ``loss_scaler``, or with a fixed scale, the scale stays as it is."""
        super().load_state_dict(state_dict)
        if self._fixed_scale is None and state_dict.get("loss_scaler"):
            self.scaler.load_state_dict(state_dict["loss_scaler"])


def _checked_dtype(dtype: str | torch.dtype | None, device_type: str) -> torch.dtype:
    if dtype is None:
        return torch.get_autocast_dtype(device_type)
    if isinstance(dtype, str) and dtype in _DTYPES:
        return _DTYPES[dtype]
    if dtype not in _DTYPES.values():
        raise ConfigError(f"mixed precision knows no dtype {str(dtype)!r}; {nearest(str(dtype), _DTYPES)}")
    assert isinstance(dtype, torch.dtype)
    return dtype


def _scaler_settings(loss_scale: str | float | int | Mapping[str, Any]) -> dict[str, Any]:
    if loss_scale == "dynamic":
        return {}
    if isinstance(loss_scale, Mapping):
        for word in loss_scale:
            if word not in _SCALER_WORDS:
                raise ConfigError(f"loss_scale has no setting {word!r}; {nearest(str(word), _SCALER_WORDS)}")
        return _checked_scaler(dict(loss_scale))
    if isinstance(loss_scale, (str, bool)) or not 0 < loss_scale < float("inf"):
        raise ConfigError(f"loss_scale should be 'dynamic', a number above 0 or a dict, got {loss_scale!r}")
    return {"init_scale": float(loss_scale)}


def _checked_scaler(settings: dict[str, Any]) -> dict[str, Any]:
    for word, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ConfigError(f"loss_scale's {word} should be a number above 0, got {value!r}")
    if not settings.get("growth_factor", 2) > 1 > settings.get("backoff_factor", 0.5):
        raise ConfigError(f"loss_scale's growth_factor should be above 1 and its backoff_factor below, got {settings}")
    return settings
