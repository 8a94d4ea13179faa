"""Which direction of a figure is the good one, by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from simtrain.errors import ConfigError

LESS = "loss error err perplexity mae mse rmse fnmr fmr far frr eer alignment uniformity distance refused"
MORE = "precision recall hit mrr reciprocal ndcg map ap accuracy acc auc auroc f1 tar spearman pearson correlation"


def greater_is_better(name: str) -> bool:
    """Whether a figure of this name is the better the greater it is.

    Raises:
        ConfigError: The name does not tell.

    Example:
        >>> greater_is_better("validation_loss"), greater_is_better("ndcg@10_validation")
        (False, True)
    """
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    less, more = bool(words & set(LESS.split())), bool(words & set(MORE.split()))
    if less == more:
        raise ConfigError(
            f"the name {name!r} does not tell whether more is better; say it: checkpoint.monitor: {{{name}: true}}, or "
            f"false where less is better"
        )
    return more


def directions(monitor: str | Mapping[str, bool | None]) -> dict[str, bool]:
    """Figure → whether more of it is better.

    Args:
        monitor: A figure, or figures with their directions; None says that the name tells.

    Raises:
        ConfigError: A name does not tell, or a direction is none.

    Example:
        >>> directions({"mrr_validation": None, "brightness": False})
        {'mrr_validation': True, 'brightness': False}
    """
    if not isinstance(monitor, (str, Mapping)):
        raise ConfigError(
            f"checkpoint.monitor should be a figure, or figures with their directions ({{validation_loss: false}}), "
            f"got {monitor!r}"
        )
    named = {monitor: None} if isinstance(monitor, str) else dict(monitor)
    for name, more in named.items():
        if more not in (None, True, False):
            raise ConfigError(f"checkpoint.monitor.{name} should be true (more is better), false or null, got {more!r}")
    return {name: greater_is_better(name) if more is None else more for name, more in named.items()}
