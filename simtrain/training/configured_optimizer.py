"""An optimizer as a config describes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from simtrain import registry
from simtrain.errors import ConfigError

GROUPS = "parameter_groups"


class ConfiguredOptimizer:
    """From parameters to an optimizer; a model regroups them as :attr:`parameter_groups` says.

    Args:
        config: ``{"type": NAME, **settings}``, and ``parameter_groups`` for
            :func:`~simtrain.training.parameter_groups.regroup`.

    Raises:
        ConfigError: The name or a setting is unknown, or a number is not finite.

    Example:
        >>> make = ConfiguredOptimizer({"type": "SGD", "lr": 0.1, "parameter_groups": [{"pattern": "head", "lr": 1.0}]})
        >>> make.parameter_groups
        [{'pattern': 'head', 'lr': 1.0}]
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = {word: value for word, value in config.items() if word != GROUPS}
        self.parameter_groups: list[dict[str, Any]] = list(config.get(GROUPS) or [])
        registry.optimizers.check(self.config, 1)
        for word, value in self.config.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"optimizer {self.config['type']!r}: {word} should be a finite number, got {value}")

    def __call__(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Build it."""
        optimizer: Optimizer = registry.optimizers.build(self.config, parameters)
        return optimizer
