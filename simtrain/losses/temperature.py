"""Temperatures that are learnt, or that move by a schedule.

Wherever a loss has a ``temperature``, a number stays as it is, :class:`LearntTemperature` is optimised with the model,
and :class:`ScheduledTemperature` moves step by step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simtrain.errors import ConfigError, nearest
from simtrain.losses.settings import check_choice, check_positive


class LearntTemperature(nn.Module):
    """A temperature that is optimised, as the logarithm of itself, within bounds.

    At a bound the parameter is set back to it before each use in training, so that it neither runs away nor sticks.
    An optimizer with weight decay draws the logarithm towards 0, that is, the temperature towards 1.

    Args:
        initial: Temperature to start from, within the bounds.
        low: Lower bound, above zero. CLIP has 0.01.
        high: Upper bound.

    Attributes:
        log_temperature: The parameter, a scalar.

    Raises:
        ConfigError: A number is not above zero, or they are not in order.

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
        https://arxiv.org/abs/2103.00020 (section 2.5)

    Example:
        >>> from simtrain.losses import NTXentLoss
        >>> loss = NTXentLoss(temperature={"initial": 0.1, "low": 0.02})
        >>> [name for name, _ in loss.named_parameters()]
        ['temperature.log_temperature']
    """

    def __init__(self, initial: float | int = 0.07, low: float | int = 0.01, high: float | int = 1.0) -> None:
        super().__init__()
        given = {"low": low, "initial": initial, "high": high}
        low, initial, high = (check_positive("LearntTemperature", name, value) for name, value in given.items())
        if not low <= initial <= high or low == high:
            raise ConfigError(
                f"LearntTemperature: low <= initial <= high must hold and low < high, got {low}, {initial}, {high}"
            )
        self.initial, self.low, self.high = initial, low, high
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> Float[Tensor, ""]:
        """The temperature, a scalar with its graph."""
        low, high = math.log(self.low), math.log(self.high)
        if not self.training:
            return self.log_temperature.clamp(low, high).exp()
        with torch.no_grad():
            self.log_temperature.clamp_(low, high)
        # Its backward pass uses its result: setting the parameter back again, for another loss, does not spoil it.
        return self.log_temperature.exp()

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"initial": self.initial, "low": self.low, "high": self.high}

    def extra_repr(self) -> str:
        """Settings, as ``print(loss)`` shows them."""
        return f"{float(self.log_temperature.detach().exp()):.4g}, low={self.low}, high={self.high}"


_SHAPES = ("exponential", "linear", "cosine")


class ScheduledTemperature(nn.Module):
    """A temperature that moves from ``start`` to ``end`` within ``steps`` steps, and then stays.

    A :class:`~simtrain.TrainableModel` calls :meth:`step` after each training batch; in a loop of your own, call it
    yourself, as you would a learning-rate schedule's. Its place is saved in checkpoints.

    Args:
        start: First temperature.
        end: Last temperature.
        steps: Batches from the first to the last, one or more.
        shape: ``"exponential"`` (equal ratios), ``"linear"`` (equal differences) or ``"cosine"`` (slow at both ends).

    Raises:
        ConfigError: A setting is not one of the above.

    Example:
        >>> temperature = ScheduledTemperature(start=0.4, end=0.1, steps=2)
        >>> for _ in range(4):
        ...     print(round(temperature(), 3), end=" ")
        ...     temperature.step()
        0.4 0.2 0.1 0.1
    """

    def __init__(self, start: float | int, end: float | int, steps: int, shape: str = "exponential") -> None:
        super().__init__()
        owner = "ScheduledTemperature"
        self.start, self.end = check_positive(owner, "start", start), check_positive(owner, "end", end)
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ConfigError(f"{owner}: steps must be a whole number, 1 or more, got {steps!r}")
        self.steps, self.shape = steps, check_choice(owner, "shape", shape, _SHAPES)
        # A Python integer, no buffer: reading a tensor would make a GPU wait in every step.
        self._taken = 0

    def forward(self) -> float:
        """The present temperature."""
        share = min(self._taken / self.steps, 1.0)
        if self.shape == "exponential":
            return float(self.start * (self.end / self.start) ** share)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (self.end - self.start) * share

    def step(self) -> None:
        """Go on by one step."""
        self._taken += 1

    def get_extra_state(self) -> dict[str, int]:
        """Steps taken, for checkpoints."""
        return {"taken": self._taken}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        self._taken = state["taken"]

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values."""
        return {"start": self.start, "end": self.end, "steps": self.steps, "shape": self.shape}

    def extra_repr(self) -> str:
        """Settings, as ``print(loss)`` shows them."""
        return ", ".join(f"{name}={value!r}" for name, value in self.get_config_dict().items())


#: What a loss takes as its ``temperature``: a config stands for one of the two modules.
GivenTemperature = float | int | nn.Module | Mapping[str, Any]
Temperature = float | LearntTemperature | ScheduledTemperature


def checked_temperature(owner: str, given: Any) -> Temperature:
    """A loss's temperature from what its constructor was given.

    Args:
        owner: The loss, for messages.
        given: A number above zero, one of the two modules, or the arguments of one as a mapping.

    Raises:
        ConfigError: It is none of these.

    Example:
        >>> checked_temperature("NTXentLoss", {"start": 0.5, "end": 0.1, "steps": 100})()
        0.5
    """
    if isinstance(given, (LearntTemperature, ScheduledTemperature)):
        return given
    if not isinstance(given, Mapping):
        return check_positive(owner, "temperature", given)
    scheduled = any(word in given for word in ("start", "end", "steps"))
    words = ("start", "end", "steps", "shape") if scheduled else ("initial", "low", "high")
    for word in given:
        if word not in words:
            raise ConfigError(f"{owner}: a temperature has no setting {word!r}; {nearest(str(word), words)}")
    try:
        return ScheduledTemperature(**given) if scheduled else LearntTemperature(**given)
    except TypeError as error:
        raise ConfigError(f"{owner}: a scheduled temperature needs start, end and steps, got {dict(given)}") from error


def temperature_config(temperature: Temperature) -> float | dict[str, Any]:
    """What :func:`checked_temperature` makes an equal temperature from, as JSON values."""
    return temperature if isinstance(temperature, float) else temperature.get_config_dict()


def temperature_now(temperature: Temperature) -> float | Tensor:
    """The present value: a number, or a scalar tensor with its graph."""
    return temperature if isinstance(temperature, float) else temperature()


def moving(temperature: Temperature, now: float | Tensor) -> dict[str, float | Tensor]:
    """What to note of a temperature: its value, unless it never changes."""
    return {} if isinstance(temperature, float) else {"temperature": now}


def step_temperatures(loss: nn.Module) -> None:
    """Go on by one step in every schedule within a loss. What is shared by several parts moves once."""
    for module in loss.modules():
        if isinstance(module, ScheduledTemperature):
            module.step()
