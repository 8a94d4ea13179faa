"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from simtrain import registry
from simtrain.errors import ConfigError

for _name in ("Adam", "AdamW", "NAdam", "RAdam", "SGD", "RMSprop", "Adagrad"):
    registry.optimizers.register_module()(getattr(torch.optim, _name))


@registry.schedulers.register_module()
def cosine(
    optimizer: Optimizer, total_steps: int, warmup_rate: float | int = 0.05, end_rate: float | int = 0.0
) -> LambdaLR:
    """Linear warm-up, then half a cosine; stepped after each optimizer step.

    Args:
        optimizer: Whose learning rates are scaled.
        total_steps: Optimizer steps of the whole run.
        warmup_rate: Share of the steps in which the rate rises from near zero, in [0, 1).
        end_rate: Share of the base rate that is left at the last step.

    Raises:
        ConfigError: ``warmup_rate`` or ``end_rate`` lies outside its range.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> schedule = cosine(optimizer, total_steps=100, warmup_rate=0.1)
        >>> [round(schedule.lr_lambdas[0](step), 3) for step in (0, 9, 55, 100)]
        [0.1, 1.0, 0.5, 0.0]
    """
    return _after_warmup(
        optimizer, total_steps, warmup_rate, end_rate, lambda done: 0.5 * (1 + math.cos(math.pi * done))
    )


@registry.schedulers.register_module()
def linear(
    optimizer: Optimizer, total_steps: int, warmup_rate: float | int = 0.05, end_rate: float | int = 0.0
) -> LambdaLR:
    """Linear warm-up, then a straight line down; arguments as for :func:`cosine`."""
    return _after_warmup(optimizer, total_steps, warmup_rate, end_rate, lambda done: 1 - done)


@registry.schedulers.register_module()
def constant(optimizer: Optimizer, total_steps: int, warmup_rate: float | int = 0.0) -> LambdaLR:
    """Linear warm-up, then the base rate; arguments as for :func:`cosine`."""
    return _after_warmup(optimizer, total_steps, warmup_rate, 0.0, lambda done: 1.0)


@registry.schedulers.register_module()
def step(
    optimizer: Optimizer,
    total_steps: int,
    warmup_rate: float | int = 0.05,
    decay_rate: float | int = 0.1,
    n_drops: int = 2,
) -> LambdaLR:
    """Linear warm-up, then the base rate, which drops ``n_drops`` times, after equal parts of the steps.

    Args:
        optimizer: Whose learning rates are scaled.
        total_steps: Optimizer steps of the whole run.
        warmup_rate: Share of the steps in which the rate rises from near zero, in [0, 1).
        decay_rate: What the rate is multiplied by at each drop, above 0 and below 1.
        n_drops: How often it drops.

    Raises:
        ConfigError: An argument lies outside its range.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> schedule = step(optimizer, total_steps=100, warmup_rate=0.1)
        >>> [round(schedule.lr_lambdas[0](done), 3) for done in (0, 9, 39, 40, 69, 70, 99)]
        [0.1, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    """
    if not 0 < decay_rate < 1 or n_drops < 1:
        raise ConfigError(
            f"decay_rate should be above 0 and below 1 and n_drops at least 1, got {decay_rate} and {n_drops}"
        )

    def drops(done: float) -> float | int:
        return float(decay_rate) ** min(int(done * (n_drops + 1) + 1e-9), n_drops)

    return _after_warmup(optimizer, total_steps, warmup_rate, 0.0, drops)


def _after_warmup(
    optimizer: Optimizer,
    total_steps: int,
    warmup_rate: float | int,
    end_rate: float | int,
    shape: Callable[[float], float | int],
) -> LambdaLR:
    for word, rate in (("warmup_rate", warmup_rate), ("end_rate", end_rate)):
        if not 0 <= rate < 1:
            raise ConfigError(f"{word} should be at least 0 and below 1, got {rate}")
    warmup_steps = round(warmup_rate * total_steps)
    return LambdaLR(optimizer, partial(_rate, warmup_steps, max(total_steps, 1), end_rate, shape))


def _rate(
    warmup_steps: int, total_steps: int, end_rate: float | int, shape: Callable[[float], float | int], step: int
) -> float | int:
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    return end_rate + (1 - end_rate) * shape(done)
