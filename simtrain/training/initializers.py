"""Ways to set a layer's weights before training."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from simtrain.errors import CheckpointError, ConfigError, nearest
from simtrain.registry import Registry
from simtrain.training.checkpoint_weights import load_named_tensors, read_weights
from simtrain.training.layer_tensors import clear_padding, own_tensor, set_tensor

_logger = logging.getLogger(__name__)
DISTRIBUTIONS = ("normal", "uniform")
FAN_MODES = ("fan_out", "fan_in")
#: Those of torch.nn.init.calculate_gain.
NONLINEARITIES = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu")

#: Names that ``init_cfg`` may give as ``type``.
initializers = Registry("initializer", ())


@dataclass(frozen=True)
class Initializer(ABC):
    """Sets ``weight`` and ``bias`` of a layer; random values come from torch's generator.

    Subclasses are frozen dataclasses, registered in ``initializers``. The padding row of an embedding stays zero.
    """

    #: Weights with fewer dimensions are left alone, and the bias beside them.
    min_dims: ClassVar[int] = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_setting(type(self).__name__, field.name, getattr(self, field.name))
        self._check()

    def _check(self) -> None:  # noqa: B027 - most have nothing more to check
        """Raise a ConfigError if values that are right one by one do not go together."""

    @abstractmethod
    def _fill(self, weight: Tensor) -> Tensor:
        """Fill ``weight`` in place, and return it."""

    def initialize(self, module: nn.Module) -> None:
        """Set the weight and the bias of one layer, not of its submodules."""
        weight = own_tensor(module, "weight")
        if weight is not None and weight.dim() < self.min_dims:
            return
        if weight is not None:
            set_tensor(module, "weight", self._fill)
            clear_padding(module)
        if own_tensor(module, "bias") is not None:
            bias = getattr(self, "bias", 0)
            set_tensor(module, "bias", lambda tensor: nn.init.constant_(tensor, bias))


@initializers.register_module()
@dataclass(frozen=True)
class Constant(Initializer):
    """All weights ``val``."""

    val: float | int
    bias: float | int = 0

    def _fill(self, weight: Tensor) -> Tensor:
        return nn.init.constant_(weight, self.val)


@initializers.register_module()
@dataclass(frozen=True)
class Xavier(Initializer):
    """Variance by fan in and fan out.

    Reference: Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural networks".
    """

    min_dims: ClassVar[int] = 2
    gain: float | int = 1
    bias: float | int = 0
    distribution: str = "normal"

    def _check(self) -> None:
        _require(self.gain >= 0, self, "gain should be 0 or more")

    def _fill(self, weight: Tensor) -> Tensor:
        draw = nn.init.xavier_uniform_ if self.distribution == "uniform" else nn.init.xavier_normal_
        return draw(weight, gain=self.gain)


@initializers.register_module()
@dataclass(frozen=True)
class Normal(Initializer):
    """A normal distribution."""

    mean: float | int = 0
    std: float | int = 1
    bias: float | int = 0

    def _check(self) -> None:
        _require(self.std >= 0, self, "std should be 0 or more")

    def _fill(self, weight: Tensor) -> Tensor:
        return nn.init.normal_(weight, self.mean, self.std)


@initializers.register_module()
@dataclass(frozen=True)
class TruncNormal(Initializer):
    """A normal distribution of which only values from ``a`` to ``b`` are kept."""

    mean: float | int = 0
    std: float | int = 1
    a: float | int = -2
    b: float | int = 2
    bias: float | int = 0

    def _check(self) -> None:
        _require(self.std > 0, self, "std should be above 0")
        _require(self.a < self.b, self, "a should be less than b")

    def _fill(self, weight: Tensor) -> Tensor:
        return nn.init.trunc_normal_(weight, self.mean, self.std, self.a, self.b)


@initializers.register_module()
@dataclass(frozen=True)
class Uniform(Initializer):
    """Evenly from ``a`` to ``b``."""

    a: float | int = 0
    b: float | int = 1
    bias: float | int = 0

    def _check(self) -> None:
        _require(self.a <= self.b, self, "a should not be above b")

    def _fill(self, weight: Tensor) -> Tensor:
        return nn.init.uniform_(weight, self.a, self.b)


@initializers.register_module()
@dataclass(frozen=True)
class Kaiming(Initializer):
    """Variance by one fan and the nonlinearity that follows (``a``: the negative slope of a leaky ReLU).

    Reference: He et al. (2015), "Delving deep into rectifiers".
    """

    min_dims: ClassVar[int] = 2
    a: float | int = 0
    mode: str = "fan_out"
    nonlinearity: str = "relu"
    bias: float | int = 0
    distribution: str = "normal"

    def _check(self) -> None:
        if self.nonlinearity not in NONLINEARITIES:
            hint = nearest(self.nonlinearity, NONLINEARITIES)
            raise ConfigError(f"Kaiming: unknown nonlinearity {self.nonlinearity!r}; {hint}")

    def _fill(self, weight: Tensor) -> Tensor:
        draw: Callable[..., Tensor] = nn.init.kaiming_normal_
        if self.distribution == "uniform":
            draw = nn.init.kaiming_uniform_
        return draw(weight, a=self.a, mode=self.mode, nonlinearity=self.nonlinearity)


@initializers.register_module()
@dataclass(frozen=True)
class Pretrained(Initializer):
    """The weights of a checkpoint file, for the module and all in it.

    Attributes:
        checkpoint: A file that ``read_weights`` can read.
        prefix: Take only the names that begin with it and a dot, without both: ``backbone`` for the backbone's weights
            out of a whole model's.
    """

    checkpoint: str
    prefix: str | None = None

    def _fill(self, weight: Tensor) -> Tensor:
        """Not for single tensors; see :meth:`initialize`."""
        raise NotImplementedError("Pretrained loads whole modules")

    def initialize(self, module: nn.Module) -> None:
        """Load the file into ``module``; names that the file does not have are logged as a warning."""
        weights = read_weights(self.checkpoint)
        if self.prefix:
            start = self.prefix.rstrip(".") + "."
            chosen = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
            if not chosen:
                raise CheckpointError(
                    f"no name in {self.checkpoint} begins with {start!r}; {nearest(start, _tops(weights))}"
                )
            weights = chosen
        missing = load_named_tensors(module, weights, self.checkpoint)
        if missing:
            shown = ", ".join(repr(name) for name in missing[:5])
            _logger.warning("%s: %d names of the model are not in the file: %s", self.checkpoint, len(missing), shown)


def _tops(names: Any) -> set[str]:
    return {name.partition(".")[0] + "." for name in names if "." in name}


def _require(condition: bool, initializer: Initializer, rule: str) -> None:
    if not condition:
        raise ConfigError(f"{type(initializer).__name__}: {rule}, got {initializer}")


def _check_setting(owner: str, name: str, value: Any) -> None:
    words = {"distribution": DISTRIBUTIONS, "mode": FAN_MODES}.get(name)
    if words is not None and value not in words:
        raise ConfigError(f"{owner}: unknown {name} {value!r}; {nearest(str(value), words)}")
    if (
        name in ("checkpoint", "nonlinearity", "prefix")
        and not isinstance(value, str)
        and (value, name) != (None, "prefix")
    ):
        raise ConfigError(f"{owner}: {name} should be a string, got {value!r}")
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if name in ("val", "gain", "mean", "std", "a", "b", "bias") and not number:
        raise ConfigError(f"{owner}: {name} should be a finite number, got {value!r}")
