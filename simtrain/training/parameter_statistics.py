"""How the values of a model's parameters are distributed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from simtrain.errors import ConfigError, UnknownNameError, import_extra
from simtrain.training.parameters import nearest_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Values that are looked at together: a large parameter is never converted whole.
CHUNK = 1 << 22


def parameter_histogram(model: nn.Module, param_name: str, bins: int = 50) -> Figure:
    """Draw the histogram of one parameter; needs matplotlib (``pip install 'simtrain[report]'``).

    Values are counted in float64, in pieces, so that any dtype and size will do. Values that are not finite are left
    out and counted in the title. The real and the imaginary parts of complex values are counted alike.

    Args:
        model: The model.
        param_name: Name of a parameter, as ``model.named_parameters()`` gives it.
        bins: Number of bars.

    Returns:
        The figure; ``figure.savefig("weight.png")`` writes it.

    Raises:
        UnknownNameError: The model has no such parameter.
        ConfigError: ``bins`` is less than 1, or the parameter has no values (meta device, lazy layer).
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> figure = parameter_histogram(nn.Linear(3, 2), "weight", bins=10)
        >>> figure.axes[0].get_title()
        'weight (2 × 3, float32)'
    """
    if bins < 1:
        raise ConfigError(f"bins should be at least 1, got {bins}")
    named = dict(model.named_parameters(remove_duplicate=False))
    if param_name not in named:
        hint = nearest_names(param_name, named)
        raise UnknownNameError(f"{type(model).__name__} has no parameter {param_name!r}; {hint}")
    parameter = _with_values(param_name, named[param_name])
    figure: Figure = import_extra("matplotlib.figure", "report").Figure(layout="constrained")
    counts, edges, left_out = _count(parameter, bins)
    axes = figure.subplots()
    axes.stairs(counts.numpy(), edges.numpy(), fill=True)
    axes.set_title(_title(param_name, parameter, left_out), wrap=True)
    axes.set_xlabel("value")
    axes.set_ylabel("number of values")
    return figure


def parameter_outliers(model: nn.Module, sigma: float | int = 3) -> list[dict[str, Any]]:
    """Count the values of each parameter that are far from its mean.

    A value is an outlier if it is more than ``sigma`` standard deviations (``n - 1`` in the denominator; 0 for a
    single value) from the mean, or not finite. Mean, deviation, maximum and minimum are those of the finite values.

    Args:
        model: The model.
        sigma: Standard deviations from the mean.

    Returns:
        One dict for each parameter, in the model's order, also where there are no outliers: ``parameter`` (its name),
        ``total`` (number of values), ``outliers``, ``ratio`` (outliers / total), ``max_val`` and ``min_val`` (NaN
        where no value is finite). A parameter with several names is listed once.

    Raises:
        ConfigError: ``sigma`` is negative or not finite, or a parameter has no values (meta device, lazy layer).

    Example:
        >>> layer = nn.Linear(100, 1, bias=False)
        >>> _ = layer.weight.data.fill_(0.0)[0, 3] = 9.0
        >>> parameter_outliers(layer)
        [{'parameter': 'weight', 'total': 100, 'outliers': 1, 'ratio': 0.01, 'max_val': 9.0, 'min_val': 0.0}]
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ConfigError(f"sigma should be a number of 0 or more, got {sigma}")
    return [_outliers(name, _with_values(name, p), sigma) for name, p in model.named_parameters()]


def _with_values(name: str, parameter: Tensor) -> Tensor:
    if is_lazy(parameter):
        raise ConfigError(f"the size of {name!r} is not known yet; run one batch through the model first")
    if parameter.is_meta:
        raise ConfigError(f"{name!r} has no values (meta device); load or initialise the model's weights first")
    return parameter.detach()


def _chunks(parameter: Tensor) -> Iterator[Tensor]:
    """All values as float64 on the CPU, piece by piece."""
    values = torch.view_as_real(parameter.resolve_conj()) if parameter.is_complex() else parameter
    for chunk in torch.split(values.reshape(-1), CHUNK):
        yield chunk.cpu().to(torch.float64)


def _finite_chunks(parameter: Tensor) -> Iterator[Tensor]:
    return (chunk[chunk.isfinite()] for chunk in _chunks(parameter))


def _finite_range(parameter: Tensor) -> tuple[float, float, int, int]:
    """Smallest and largest finite value (inf, -inf where there is none), number of finite values, of all values."""
    low, high, finite, total = math.inf, -math.inf, 0, 0
    for chunk in _chunks(parameter):
        total += chunk.numel()
        kept = chunk[chunk.isfinite()]
        finite += kept.numel()
        if kept.numel():
            low, high = min(low, kept.min().item()), max(high, kept.max().item())
    return low, high, finite, total


def _count(parameter: Tensor, bins: int) -> tuple[Tensor, Tensor, int]:
    """Number of values in each bin, the bins' edges, and the number of values that are not finite."""
    low, high, finite, total = _finite_range(parameter)
    if not finite:
        low, high = 0.0, 1.0
    elif not high - low > abs(low) * bins * torch.finfo(torch.float64).eps:
        # All values (nearly) equal: one bar of a width that can be seen.
        low, high = low - max(0.5, abs(low) / 2), high + max(0.5, abs(high) / 2)
    if not math.isfinite(high - low):
        raise ConfigError(f"the values reach from {low:g} to {high:g}, too far apart for a histogram")
    counts = torch.zeros(bins, dtype=torch.float64)
    for chunk in _finite_chunks(parameter):
        counts += torch.histc(chunk, bins, low, high)
    return counts, torch.linspace(low, high, bins + 1, dtype=torch.float64), total - finite


def _title(name: str, parameter: Tensor, left_out: int) -> str:
    shape = " × ".join(str(size) for size in parameter.shape) or "scalar"
    title = f"{name} ({shape}, {str(parameter.dtype).removeprefix('torch.')})"
    return f"{title}\n{left_out:,} values that are not finite left out" if left_out else title


def _outliers(name: str, parameter: Tensor, sigma: float | int) -> dict[str, Any]:
    low, high, finite, total = _finite_range(parameter)
    outliers = total - finite
    # Where all values are equal, rounding in the mean must not make outliers of them.
    if high > low:
        mean = sum(chunk.sum().item() for chunk in _finite_chunks(parameter)) / finite
        squares = sum((chunk - mean).square().sum().item() for chunk in _finite_chunks(parameter))
        limit = sigma * math.sqrt(squares / (finite - 1))
        outliers += sum(int(((chunk - mean).abs() > limit).sum()) for chunk in _finite_chunks(parameter))
    return {
        "parameter": name,
        "total": total,
        "outliers": outliers,
        "ratio": outliers / total if total else 0.0,
        "max_val": high if finite else math.nan,
        "min_val": low if finite else math.nan,
    }
