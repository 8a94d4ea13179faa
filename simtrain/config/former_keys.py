"""Keys of wall_e's ``runner.yaml``, whose Runner this one follows, that are called otherwise here.

A key that the schema has, too, is accepted as it is, and needs no entry.
"""

from __future__ import annotations

#: Key of runner.yaml → (keys here that take its place, what to write). The section of a part stands for all below it.
FORMER_KEYS: dict[str, tuple[tuple[str, ...], str]] = {
    "run_name": (("run_dir",), "a run has one folder: write run_dir: runs/NAME"),
    "run_description": (("run_dir",), "let the folder's name say it, or write a comment into the file"),
    "dataset": (("data",), "write data: {kind: pairs, train: FILE, test: FILE}"),
    "dataset.type": (("data.kind",), "write data.kind: pairs, groups or triplets"),
    "model": (("encoders", "head"), "write encoders: {type: …} and head: {type: …}; a BaseModel goes to Runner(model)"),
    "model.type": (("encoders.type", "head.type"), "a BaseModel of your own goes to Runner(model) or its from_cfg"),
    "metric": (("metrics", "evaluators"), "write metrics: {NAME: {type: …}}"),
    "metric.type": (("metrics", "evaluators"), "write metrics: {NAME: {type: …}}"),
    "scheduler.min_lr": (
        ("scheduler.end_rate",),
        "write the share of optimizer.lr that is left at the end, such as 0.01",
    ),
    "scheduler.max_lr": (("optimizer.lr",), "a schedule starts from the optimizer's rate"),
    "scheduler.warmup_start_lr": (("scheduler.warmup_rate",), "the warm-up rises from near zero to optimizer.lr"),
    "scheduler.decay_rate": ((), "step is the schedule with it: write scheduler: {type: step, decay_rate: 0.9}"),
    "training.ds_config": (("training.strategy",), "write training.strategy: deepspeed_stage_2"),
    "training.is_sweep": ((), "leave it out: simtrain sweep SWEEP.yaml runs the trials"),
    "training.fp16": (("training.precision",), "write training.precision: 16-mixed"),
    "training.print_model": (("log.level",), "leave it out"),
    "log.folder": (("run_dir",), "the log is in the run's folder"),
    "pt": (("checkpoint",), "write checkpoint: {monitor: validation_loss, topk: 3}"),
    "pt.enable": (("checkpoint.enable",), "write checkpoint.enable: true or false"),
    "pt.dir": (("checkpoint.folder",), "write checkpoint.folder, or leave it out for checkpoints in run_dir"),
    "pt.best_monitor": (("checkpoint.monitor",), "write checkpoint.monitor: {validation_loss: false}"),
    "pt.topk": (("checkpoint.topk",), "write checkpoint.topk: 3"),
    "pt.begin_epoch": (("checkpoint.begin_epoch",), "write checkpoint.begin_epoch: 1"),
    "pt.epoch_interval": (("checkpoint.epoch_interval",), "write checkpoint.epoch_interval: 1"),
    "pt.begin_batch": (("checkpoint.begin_step",), "it counts optimizer steps: write checkpoint.begin_step: 1"),
    "pt.batch_interval": (
        ("checkpoint.step_interval",),
        "it counts optimizer steps: write checkpoint.step_interval: 1000",
    ),
    "wandb.dir": (("run_dir",), "its files are in the run's folder"),
    "tune": ((), "a sweep has a file of its own: simtrain sweep SWEEP.yaml"),
    "tune.metric": ((), "write metric: validation_loss into the sweep's file"),
    "tune.mode": ((), "write mode: min or max into the sweep's file"),
    "tune.max_t": (("training.epochs",), "a trial trains for as many epochs as the job says"),
    "tune.grace_period": ((), "write pruner: {type: asha, min_resource: 1} into the sweep's file"),
    "tune.reduction_factor": ((), "write pruner: {type: asha, reduction_factor: 4} into the sweep's file"),
    "tune.num_workers": ((), "call simtrain sweep SWEEP.yaml once for each process; they share the trials"),
    "tune.use_gpu": (("training.device",), "write training.device: cuda or cpu"),
    "tune.num_samples": ((), "write trials: 20 into the sweep's file"),
    "tune.name": ((), "a sweep is known by its folder: write run_dir: runs/NAME into the sweep's file"),
    "tune.storage_path": ((), "write run_dir: runs/NAME into the sweep's file"),
    "tune.param_space": ((), "write param_space: {KEY: {type: choice, values: [...]}} into the sweep's file"),
}


def former_key(name: str) -> str | None:
    """The sentence on a key of runner.yaml that is called otherwise here; None for any other key.

    Args:
        name: The key, with dots.

    Example:
        >>> former_key("training.fp16")
        "the config's key 'training.fp16' is 'training.precision' here; write training.precision: 16-mixed"
    """
    if name not in FORMER_KEYS:
        return None
    keys, say = FORMER_KEYS[name]
    is_now = f"is {' and '.join(map(repr, keys))} here" if keys else "has no place here"
    return f"the config's key {name!r} {is_now}; {say}"
