"""What a runner lends its model for a run: optimizer, schedule, accumulation, clipping."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from omegaconf import DictConfig
from torch.optim import Optimizer

from simtrain import registry
from simtrain.config import plain
from simtrain.errors import ConfigError, ContractError
from simtrain.training import BaseModel
from simtrain.training.configured_optimizer import GROUPS, ConfiguredOptimizer
from simtrain.training.parameter_groups import regroup


@contextmanager
def settings_lent(model: BaseModel, cfg: DictConfig, optimizer: Optimizer | None = None) -> Iterator[None]:
    """Give a model the settings of a config for a while; its own come first, and are back in place afterwards.

    Args:
        model: The model.
        cfg: A config from :func:`simtrain.load_cfg`.
        optimizer: The optimizer; comes before the model's own, and the config's.
    """
    own = (model.make_optimizer, model.make_scheduler, model.optim_wrapper_cfg)
    clip = None if cfg.training.grad_clip is None else {"max_norm": cfg.training.grad_clip}
    updating = {"accumulative_counts": cfg.training.gradient_accumulation, "clip_grad": clip}
    scheduler = cfg.scheduler and partial(registry.schedulers.build, plain(cfg.scheduler))
    model.make_optimizer = own[0] or ConfiguredOptimizer(plain(cfg.optimizer))
    model.make_scheduler = own[1] or scheduler
    model.optim_wrapper_cfg = own[2] or updating
    lent = {} if optimizer is None else {"configure_optimizers": partial(model.with_schedule, optimizer)}
    if lent.keys() & vars(model).keys():
        lent = {}  # a run within a run
    # An attribute of this object, which hides its class's method, whoever wrote that.
    vars(model).update(lent)
    try:
        yield
    finally:
        model.make_optimizer, model.make_scheduler, model.optim_wrapper_cfg = own
        for name in lent:
            del vars(model)[name]


def check_optimizer(optimizer: Any, model: BaseModel, cfg: DictConfig) -> None:
    """Refuse an optimizer that would not train the model.

    Raises:
        ContractError: It is none.
        ConfigError: It has none of the model's parameters, or the config's groups of parameters do not fit.
    """
    groups = plain(cfg.optimizer).get(GROUPS)
    if groups and optimizer is not None:
        raise ConfigError(
            "optimizer.parameter_groups is for the config's optimizer, and an optimizer was given; give it groups of "
            "its own, or leave it out"
        )
    if groups and model.make_optimizer is None:
        # A rehearsal, of which nothing stays: a pattern that is found nowhere is told now.
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if trained:
            regroup(ConfiguredOptimizer(plain(cfg.optimizer))(trained), model.named_parameters(), groups)
    if optimizer is None:
        return
    if not isinstance(optimizer, Optimizer):
        raise ContractError(
            f"optimizer should be a torch optimizer, got {type(optimizer).__name__}; leave it out for that of the "
            f"config (optimizer: {{type: AdamW, lr: 0.001}})"
        )
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
        raise ConfigError(
            f"the optimizer has no parameter of this {type(model).__name__}, so that nothing would be trained; "
            f"build it from the parameters of the model that the runner is given"
        )
