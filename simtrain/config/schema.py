"""Every key of a training job's config, with its type, its default and what it may be.

A section is a dataclass in a file of its own. A key is a field; what its value may be stands beside it
(:func:`~simtrain.config.limits.limited`), and its one line of documentation under ``Attributes``, where
``simtrain config schema`` reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from simtrain.config.checkpoint_section import CheckpointConfig
from simtrain.config.data_section import DataConfig
from simtrain.config.limits import Within, limited
from simtrain.config.log_section import LogConfig, WandbConfig
from simtrain.config.training_section import TrainingConfig


@dataclass
class Config:
    """A whole training job.

    Attributes:
        run_dir: Folder of this run: model, checkpoints, figures, log, and the config itself. ``runs/${now:%Y-%m-%d}``
            makes a new one each day. Null: ``runs/simtrain`` for a job, none for a bare :class:`simtrain.Runner`.
        seed: Seed of every random choice.
        encoders: ``{type: …}`` of one encoder, or encoders by name.
        head: ``{type: …}`` of the head.
        loss: ``{type: …}`` of the loss.
        loss_lr: Learning rate of the loss's own parameters (class weights, proxies); null for the optimizer's.
        optimizer: ``{type: …}`` of the optimizer.
        scheduler: ``{type: …}`` of the learning-rate schedule; null for a constant rate.
        cache: Arguments of :class:`simtrain.CacheConfig`; null for no cache.
        xbm: Arguments of :class:`simtrain.XbmConfig`; null for no memory.
        metrics: Name → ``{type: …}`` of a metric that is logged for each batch.
        evaluators: Name → ``{type: …, stages: …}`` of what measures whole data sets at the end of each epoch.
        data: See :class:`DataConfig`.
        training: See :class:`TrainingConfig`.
        log: See :class:`LogConfig`.
        checkpoint: See :class:`CheckpointConfig`.
        wandb: See :class:`WandbConfig`.
        callbacks: ``{type: …}`` of each callback that is used beside the runner's own.
    """

    run_dir: str | None = None
    seed: int = limited(0, Within(0, 2**32 - 1))
    encoders: dict[str, Any] = MISSING
    head: dict[str, Any] = field(default_factory=lambda: {"type": "SkipConnectionHead"})
    loss: dict[str, Any] = MISSING
    loss_lr: float | None = None
    optimizer: dict[str, Any] = field(default_factory=lambda: {"type": "AdamW", "lr": 1e-3})
    scheduler: dict[str, Any] | None = None
    cache: dict[str, Any] | None = None
    xbm: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    evaluators: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    log: LogConfig = field(default_factory=LogConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    callbacks: list[Any] = field(default_factory=list)
