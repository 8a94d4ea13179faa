"""Optimizer steps whose gradients are not finite are left out, and counted."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from simtrain.errors import DataError

logger = logging.getLogger("simtrain")

#: How the count of steps left out is logged.
FIGURE = "train_skipped_steps"
_SHOWN = 8


class NonfiniteGuard(Callback):
    """Leaves out an optimizer step whose gradients hold NaN or infinity, in all processes alike.

    The batch is named in the log, and the count of such steps is a figure, ``train_skipped_steps``. No weight and no
    state of the optimizer is changed by them. A loss that is not finite spoils all gradients of its step on purpose:
    after they are summed over processes and batches, each process sees the same.

    Args:
        limit: How many such steps in a row are put up with.

    Attributes:
        count: Steps left out in all.
        in_a_row: The latest ones of them that nothing came between.

    Raises:
        DataError: In training: there are more in a row, or a buffer (a batch norm's statistics, say) is spoiled, too.

    Example:
        >>> NonfiniteGuard(limit=3).count
        0
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.count, self.in_a_row = limit, 0, 0
        self._losses: list[str] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Be told of losses."""
        pl_module.on_nonfinite_loss = self.note

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Let go of the model."""
        pl_module.on_nonfinite_loss = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let go of the model."""
        pl_module.on_nonfinite_loss = None

    def note(self, loss: Tensor, batch: Any, batch_idx: int) -> Tensor:
        """Note a batch whose loss is not finite; gives the loss that spoils every gradient."""
        self._losses.append(f"the loss of batch {batch_idx + 1} is {loss.item()}{_items_of(batch)}")
        return loss * float("nan")

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Look at the gradients, and drop them where they are not finite."""
        parameters = [one for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            # Gradients that overflow are how a scaler finds its scale; it leaves such steps out itself.
            is_finite = not trainer.strategy.reduce_boolean_decision(bool(self._losses), all=False)
        else:
            is_finite = are_finite(one.grad for one in parameters)
        if is_finite:
            self.in_a_row = 0
            return
        for one in parameters:
            one.grad = None
        self._leave_out(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"count": self.count, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.count, self.in_a_row = state_dict["count"], state_dict["in_a_row"]

    def _leave_out(self, trainer: Any, module: Any) -> None:
        self.count += 1
        self.in_a_row += 1
        progress = trainer.fit_loop.epoch_loop.batch_progress
        reason = "; ".join(self._losses) or "its loss, in this process, is finite"
        place = f"batch {progress.current.ready} of epoch {trainer.current_epoch + 1}"
        self._losses.clear()
        logger.error("gradients are not finite: the step after %s is left out (%s)", place, reason)
        module.log(FIGURE, float(self.count), on_step=True, on_epoch=False, batch_size=1)
        _check_buffers(trainer, module, place)
        if self.in_a_row > self.limit:
            raise DataError(
                f"the gradients of {self.in_a_row} steps in a row are not finite, the last one after {place} "
                f"({reason}); no weight was changed by them. Lower the learning rate, clip gradients "
                f"(training.grad_clip), or look at the batches; training.nonfinite_limit is how many are put up with"
            )


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no value of any tensor is NaN or infinite; asks the device once.

    Example:
        >>> are_finite([torch.ones(2)]), are_finite([torch.ones(2), torch.tensor([1.0, float("inf")])])
        (True, False)
    """
    dense = [tensor._values() if tensor.is_sparse else tensor for tensor in tensors]
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in dense:
        by_device.setdefault(tensor.device, []).append(tensor)
    # A total carries NaN and infinity on; one that overflows by its size alone is looked at again.
    if all(total - total == 0 for total in map(_total, by_device.values())):
        return True
    return all(bool(tensor.isfinite().all()) for tensor in dense)


def _total(tensors: list[Tensor]) -> float:
    # On a CPU a sum is read at once, and takes half of a norm's time; elsewhere each read is waited for.
    if tensors[0].device.type == "cpu":
        return sum(tensor.sum().item() for tensor in tensors)
    return torch.stack(torch._foreach_norm(tensors)).sum().item()


def _check_buffers(trainer: Any, module: nn.Module, place: str) -> None:
    spoiled = [
        name for name, buffer in module.named_buffers() if buffer.is_floating_point() and not buffer.isfinite().all()
    ]
    # Each process has buffers of its own; all are to stop.
    if trainer.strategy.reduce_boolean_decision(bool(spoiled), all=False):
        named = ", ".join(spoiled[:_SHOWN]) or "that of another process"
        raise DataError(
            f"a buffer of the model is not finite after {place}, and cannot be taken back: {named}; leave out the "
            f"items that make it so"
        )


def _items_of(batch: Any) -> str:
    numbers = getattr(batch, "numbers", None)
    if numbers is None and isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], dict):
        numbers = batch[1].get("items")
    if numbers is None:
        return ""
    listed = [int(number) for number in numbers]
    more = ", …" if len(listed) > _SHOWN else ""
    return f", items {', '.join(map(str, listed[:_SHOWN]))}{more} of the data set"
