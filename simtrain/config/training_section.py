"""The section ``training`` of a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from simtrain.config.limits import Above, AtLeast, Matching, OneOf, limited

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")
LOOPS = ("auto", "cached", "trainer")
_TIME_FORM = "'DD:HH:MM:SS', in quotes and longer than no time, such as '00:12:00:00'"
_TIME = r"(?=.*[1-9])\d+:\d\d?:\d\d?:\d\d?"
DEVICES = ("auto", "cpu", "cuda", "gpu", "mps")


@dataclass
class TrainingConfig:
    """How the training loop runs.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Samples a batch.
        drop_last: Leave out the last, smaller batch of an epoch.
        num_workers: Worker processes that collate; not needed where every encoder is cached.
        gradient_accumulation: Batches whose gradients are summed for one optimizer step.
        grad_clip: Largest gradient norm; null for none.
        precision: Lightning's word for the number format: ``32-true``, ``bf16-mixed``, ``16-mixed``, ...
        device: ``auto``, ``cpu``, ``cuda``, ...
        devices: How many of them; more than one trains one process on each.
        strategy: Lightning's word for how processes work together: ``auto``, ``ddp``, ...
        ema: Arguments of :class:`simtrain.training.averaging.WeightEMA`; null for no averaging of weights.
        progress_bar: Show how far the run is, and a table of the epochs at its end: a bar on a terminal, lines
            elsewhere. Null: without a terminal, lines go to the log; false shows nothing.
        loop: ``auto`` takes the fast loop where every encoder is cached and there is one device; ``cached`` refuses to
            run without it; ``trainer`` never takes it.
        max_steps: Optimizer steps after which training ends, if the epochs are not over before; null for no limit.
        max_time: Time after which it ends, as ``'DD:HH:MM:SS'`` in quotes; null for no limit.
        valid_begin_epoch: First epoch that ends with a validation.
        valid_interval_epoch: Epochs from one such validation to the next; null for none by epoch. The last epoch of all
            always ends with one.
        valid_begin_iter: First batch, counted over all epochs, that is followed by a validation; null for
            ``valid_interval_iter``.
        valid_interval_iter: Batches from one such validation to the next; null for none by batch.
        test_begin_epoch: As for validation; tests in training are for watching a test set, not for choosing by it.
        test_interval_epoch: Epochs from one test in training to the next; null for none by epoch.
        test_begin_iter: First batch that is followed by a test; null for ``test_interval_iter``.
        test_interval_iter: Batches from one such test to the next; null for none by batch.
        resume_from: Go on with a run that was stopped: ``auto`` from its newest whole checkpoint in ``run_dir``, or the
            path of one; null begins anew.
        load_from: A file of weights to begin with: safetensors, torch or Lightning; null for none.
        nonfinite_limit: Steps in a row whose gradients are not finite that are left out before training stops; null
            leaves out none, and stops at the first loss that is not finite.
        activation_checkpoint: Modules that keep no activations for the backward pass, but compute them again: patterns
            of the ends of their names (``layer.[0-9]+``), or names of their classes.
        early_stop: Arguments of :class:`simtrain.runner.callbacks.EarlyStop` (``monitor``, ``patience``, …); null for
            none.
        progress_show: Figure → whether more of it is better: those that are shown, with their best values. Empty: all
            of validation, and the loss.
        progress_every_n_epochs: Epochs from one line of progress to the next, where there is no terminal.
        progress_every_n_batches: Batches after which figures are shown, too; null for the end of epochs only.
    """

    epochs: int = limited(10, AtLeast(1))
    batch_size: int = limited(256, AtLeast(1))
    drop_last: bool = False
    num_workers: int = limited(0, AtLeast(0))
    gradient_accumulation: int = limited(1, AtLeast(1))
    grad_clip: float | None = limited(None, Above(0, "or null for none"))
    precision: str = limited("32-true", OneOf(PRECISIONS))
    device: str = limited("auto", OneOf(DEVICES))
    devices: int = limited(1, AtLeast(1))
    strategy: str = "auto"
    ema: dict[str, Any] | None = None
    progress_bar: bool | None = None
    loop: str = limited("auto", OneOf(LOOPS))
    max_steps: int | None = limited(None, AtLeast(1))
    max_time: str | None = limited(None, Matching(_TIME, _TIME_FORM))
    valid_begin_epoch: int = limited(1, AtLeast(1))
    valid_interval_epoch: int | None = limited(1, AtLeast(1))
    valid_begin_iter: int | None = limited(4000, AtLeast(1))
    valid_interval_iter: int | None = limited(1000, AtLeast(1))
    test_begin_epoch: int = limited(1, AtLeast(1))
    test_interval_epoch: int | None = limited(None, AtLeast(1))
    test_begin_iter: int | None = limited(None, AtLeast(1))
    test_interval_iter: int | None = limited(None, AtLeast(1))
    resume_from: str | None = None
    load_from: str | None = None
    nonfinite_limit: int | None = limited(10, AtLeast(0))
    activation_checkpoint: list[str] = field(default_factory=list)
    early_stop: dict[str, Any] | None = None
    progress_show: dict[str, bool] = field(default_factory=dict)
    progress_every_n_epochs: int = limited(1, AtLeast(1))
    progress_every_n_batches: int | None = limited(None, AtLeast(1))
