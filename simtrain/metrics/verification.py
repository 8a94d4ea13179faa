"""How well similarities tell matching pairs from others: for verification, and for deciding by a threshold."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from simtrain.errors import ConfigError, DataError


class ErrorRates(NamedTuple):
    """Error rates of the decision "a pair matches where its similarity is above the threshold".

    Attributes:
        fnmr: False non-match rate: share of the matching pairs that are refused.
        fmr: False match rate: share of the other pairs that are accepted; at most what was allowed.
        threshold: The highest similarity that is refused; minus infinity where all are accepted.
    """

    fnmr: float
    fmr: float
    threshold: float

    @property
    def tar(self) -> float:
        """True accept rate (TAR@FAR): share of the matching pairs that are accepted."""
        return 1.0 - self.fnmr


def pair_auc(similarities: Tensor | NDArray[Any], matches: Tensor | NDArray[Any]) -> float:
    """Area under the ROC curve: the chance that a matching pair is more similar than another, ties count half.

    Args:
        similarities: Of each pair, floating point, shape ``(pairs,)``; higher is more similar.
        matches: Whether the pair matches, booleans or 0 and 1, shape ``(pairs,)``.

    Raises:
        DataError: Shapes differ, a similarity is NaN, or there is no matching or no other pair.

    Reference:
        Hanley, McNeil: The meaning and use of the area under a receiver operating characteristic curve, 1982.

    Example:
        >>> pair_auc(torch.tensor([0.9, 0.6, 0.6, 0.1]), torch.tensor([1, 1, 0, 0]))
        0.875
    """
    matching, others = _split(similarities, matches)
    others = others.sort().values
    below, not_above = torch.searchsorted(others, matching), torch.searchsorted(others, matching, right=True)
    return int((below + not_above).sum()) / (2 * len(matching) * len(others))


def fnmr_at_fmr(similarities: Tensor | NDArray[Any], matches: Tensor | NDArray[Any], fmr: float | int) -> ErrorRates:
    """Lowest false non-match rate at a threshold where the false match rate is at most ``fmr``.

    Args:
        similarities: Of each pair, floating point, shape ``(pairs,)``; higher is more similar.
        matches: Whether the pair matches, booleans or 0 and 1, shape ``(pairs,)``.
        fmr: Allowed share of other pairs that are accepted, from 0 to 1.

    Returns:
        The rates and the threshold; ``.tar`` is TAR@FAR.

    Raises:
        ConfigError: ``fmr`` is not from 0 to 1.
        DataError: As :func:`pair_auc`.

    Reference:
        Maio et al.: FVC2000: Fingerprint Verification Competition, 2002, section 3.

    Example:
        >>> fnmr_at_fmr(torch.tensor([0.9, 0.6, 0.75, 0.1]), torch.tensor([1, 1, 0, 0]), fmr=0)
        ErrorRates(fnmr=0.5, fmr=0.0, threshold=0.75)
    """
    allowed = checked_rate("fmr", fmr)
    matching, others = _split(similarities, matches)
    n_accepted = accepted_count(len(others), allowed)
    if n_accepted == len(others):
        return ErrorRates(0.0, 1.0, -math.inf)
    threshold = others.sort(descending=True).values[n_accepted]
    fnmr, found = (matching <= threshold).double().mean(), (others > threshold).double().mean()
    return ErrorRates(float(fnmr), float(found), float(threshold))


def checked_rate(name: str, value: Any) -> float:
    """Return a share from 0 to 1.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{name} is a share from 0 to 1, got {value!r}")
    return float(value)


def accepted_count(n_others: int, fmr: float) -> int:
    """How many of so many other pairs may be accepted.

    Example:
        >>> accepted_count(1000, 0.029)  # not 28, as 1000 * 0.029 in floating point would have it
        29
    """
    return math.floor(n_others * fmr * (1 + 1e-12) + 1e-12)


def _split(
    similarities: Tensor | NDArray[Any], matches: Tensor | NDArray[Any]
) -> tuple[Float[Tensor, " matching"], Float[Tensor, " others"]]:
    values, flags = torch.as_tensor(similarities).detach(), torch.as_tensor(matches)
    if values.ndim != 1 or values.shape != flags.shape or not values.is_floating_point():
        raise DataError(
            "similarities are floating point numbers and matches booleans, one a pair; got "
            f"{values.dtype} of shape {tuple(values.shape)} and {flags.dtype} of shape {tuple(flags.shape)}"
        )
    if bool(values.isnan().any()):
        raise DataError(f"the similarity of pair {int(values.isnan().nonzero()[0])} is NaN")
    known: Bool[Tensor, " pairs"] = flags == 1
    if bool((~known & (flags != 0)).any()):
        raise DataError("matches are booleans, or 0 and 1")
    if bool(known.all()) or not bool(known.any()):
        kind = "matching" if not bool(known.any()) else "other"
        raise DataError(f"there is no {kind} pair among {len(values)}; rates need both kinds")
    return values[known], values[~known]
