"""What Lightning's own checkpoints leave out of a run, for all processes of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import lightning
import torch.distributed as dist
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from simtrain.data.resumable_loader import inner_sampler
from simtrain.data.samplers.dealing import current_world
from simtrain.errors import CheckpointError
from simtrain.runner.checkpoints.figure_state import figure_state, restore_figures
from simtrain.runner.checkpoints.random_state import random_state, restore_random_state

logger = logging.getLogger("simtrain")

#: A place that a run can go on from exactly: between two batches of an epoch, or between two epochs.
Place = Literal["batch", "epoch"]


def run_state(trainer: lightning.Trainer, place: Place, order: Mapping[str, Any]) -> dict[str, Any]:
    """State of a run at a place, beside what Lightning saves; all processes have to call this together.

    Args:
        trainer: The trainer.
        place: Where it is.
        order: Where the generators stood when this epoch's order was drawn, for a loader that forgets it.

    Returns:
        Tensors and plain values only, with an entry for each process.
    """
    loaders = {"train": trainer.train_dataloader, "valid": trainer.val_dataloaders}
    own = {
        "generators": generator_state(trainer, loaders),
        "order": dict(order),
        "figures": figure_state(trainer),
        "gradients": _open_window(trainer),
    }
    ranks: list[Any] = [own]
    if current_world().size > 1:
        ranks = [None] * current_world().size
        dist.all_gather_object(ranks, own)
    return {"place": place, "should_stop": bool(trainer.should_stop), "ranks": ranks}


def restore_run(trainer: lightning.Trainer, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Go on from a state; the trainer has loaded its own part already.

    Args:
        trainer: A trainer in ``fit``, before its first batch.
        state: What :func:`run_state` gave.

    Returns:
        This process's entry.

    Raises:
        CheckpointError: It is the state of another optimizer.
    """
    _check_optimizers(trainer)
    trainer.should_stop = state["should_stop"]
    world, saved = current_world(), len(state["ranks"])
    if saved != world.size:
        logger.warning(
            "the checkpoint is of %d processes, this run has %d: random numbers and the sums of the epoch's figures "
            "cannot be those of the run that was left",
            saved,
            world.size,
        )
    if world.rank >= saved:
        return {}
    own: Mapping[str, Any] = state["ranks"][world.rank]
    if saved == world.size:
        restore_figures(trainer, own["figures"])
        _reopen_window(trainer, own["gradients"])
    restore_generators(trainer, own["generators"])
    return own


def _check_optimizers(trainer: lightning.Trainer) -> None:
    # An optimizer takes the settings of any other, and breaks off at its first step without its own.
    for optimizer in trainer.optimizers:
        lacking = sorted({name for group in optimizer.param_groups for name in set(optimizer.defaults) - set(group)})
        if lacking:
            raise CheckpointError(
                f"cannot resume: the checkpoint is of a run with another optimizer than {type(optimizer).__name__} (it "
                f"holds no {', '.join(lacking)}); give the one that it began with, or, to begin with its weights, set "
                f"training.load_from in place of training.resume_from"
            )


def generator_state(trainer: lightning.Trainer, loaders: Mapping[str, Any]) -> dict[str, Any]:
    """Where all generators of random numbers stand: the global ones, and those that loaders were given.

    Args:
        trainer: The trainer.
        loaders: Name → loader, or loaders, or None.
    """
    own = {name: [one.get_state() for one in _generators(given)] for name, given in loaders.items()}
    return {"global": random_state(trainer.strategy.root_device), "loaders": own}


def restore_generators(trainer: lightning.Trainer, state: Mapping[str, Any]) -> None:
    """Put all generators where they stood."""
    restore_random_state(state["global"], trainer.strategy.root_device)
    loaders = {"train": trainer.train_dataloader, "valid": trainer.val_dataloaders}
    for name, states in state["loaders"].items():
        for generator, one in zip(_generators(loaders[name]), states, strict=False):
            generator.set_state(one.cpu())


def _open_window(trainer: lightning.Trainer) -> dict[str, Tensor]:
    if not trainer.fit_loop.epoch_loop._should_accumulate():
        return {}
    named = trainer.lightning_module.named_parameters()
    return {name: parameter.grad.cpu() for name, parameter in named if parameter.grad is not None}


def _reopen_window(trainer: lightning.Trainer, gradients: Mapping[str, Tensor]) -> None:
    for name, parameter in trainer.lightning_module.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device, copy=True)


def _generators(loaders: Any) -> list[Generator]:
    found: dict[int, Generator] = {}
    for loader in loaders if isinstance(loaders, (list, tuple)) else [loaders]:
        if isinstance(loader, DataLoader):
            owners = (loader, loader.sampler, inner_sampler(loader))
            given = [getattr(owner, "generator", None) for owner in owners]
            found.update({id(one): one for one in given if isinstance(one, Generator)})
    return list(found.values())
