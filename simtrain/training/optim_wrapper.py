"""From a loss to updated weights: accumulation, clipping, the step."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from simtrain.encoders.positive_size import positive_size
from simtrain.errors import CheckpointError, ConfigError, ContractError
from simtrain.training.accumulation import AccumulationWindow
from simtrain.training.gradient_clipping import check_clipping, clip_gradients
from simtrain.training.loss_check import check_loss

logger = logging.getLogger("simtrain")


class OptimWrapper:
    """What a training step does with its loss: the backward pass and, where it is due, the update.

    With ``accumulative_counts=N`` the weights are updated once in N batches, by the mean of their gradients. If
    :meth:`initialize_count_status` has told how many batches there will be, a last, incomplete window is updated,
    too, by the mean of the batches that it has.

    Args:
        optimizer: Whose parameters are updated.
        accumulative_counts: Batches to an update.
        clip_grad: Arguments of :func:`~simtrain.training.gradient_clipping.clip_gradients`, for example
            ``{"max_norm": 1.0}`` or ``{"type": "value", "clip_value": 0.1}``; default: no clipping.

    Attributes:
        optimizer: The given optimizer.
        grad_norm: Norm of all gradients together, before they were clipped, at the last update; None before the
            first one and without clipping.
        n_updates: How often the optimizer has stepped.

    Raises:
        ConfigError: A setting is unknown or out of its range.
        ContractError: ``optimizer`` is no torch optimizer.

    Example:
        >>> import torch
        >>> weight = nn.Parameter(torch.tensor(2.0))
        >>> wrapper = OptimWrapper(torch.optim.SGD([weight], lr=0.5), accumulative_counts=2)
        >>> for target in (1.0, 0.0):
        ...     wrapper.update_params((weight - target) ** 2)
        >>> weight.item(), wrapper.n_updates
        (0.5, 1)
    """

    def __init__(
        self, optimizer: Optimizer, accumulative_counts: int = 1, clip_grad: Mapping[str, Any] | None = None
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ContractError(f"an optimizer wrapper takes a torch.optim.Optimizer, got a {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.clip_grad = check_clipping(clip_grad) if clip_grad is not None else None
        self.grad_norm: Tensor | None = None
        self.n_updates = 0
        self._window = AccumulationWindow(positive_size("accumulative_counts", accumulative_counts))
        self._warned_of_batch_norm = False
        # Counts steps that were really taken, whoever calls the optimizer: a gradient scaler leaves some out.
        optimizer.register_step_post_hook(self._count_update)

    @property
    def accumulative_counts(self) -> int:
        """Batches to an update."""
        return self._window.size

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups of parameters."""
        return self.optimizer.param_groups

    def get_lr(self) -> dict[str, list[float]]:
        """Learning rate of each group, under ``lr``."""
        return {"lr": [float(group["lr"]) for group in self.param_groups]}

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Say where in its batches a run or an epoch begins, and where it ends.

        Args:
            model: The model under training; one with batch-norm layers is warned of, as each batch of a window
                changes their statistics on its own.
            init_counts: Batches done before. In the middle of a window whose gradients are not there, the rest of
                the window is a window of its own.
            max_counts: Batches there will be, those done included; -1 for unknown.

        Raises:
            ConfigError: The counts contradict each other.
        """
        if init_counts < 0 or (max_counts != -1 and max_counts < init_counts):
            raise ConfigError(
                f"init_counts should be at least 0, and max_counts at least as many or -1 for unknown, "
                f"got init_counts={init_counts} and max_counts={max_counts}"
            )
        self._warn_of_batch_norm(model)
        if self._window.is_open and self._window.count == init_counts:
            # Resumed in the middle of a window: its gradients came with the state.
            self._end_window_at(max_counts)
            return
        if self._window.is_open:
            logger.warning(
                "%d batches have not led to an update and are dropped; say in max_counts how many there will be",
                self._window.count - self._window.start,
            )
            self.zero_grad()
        self._window = AccumulationWindow(self._window.size, init_counts, init_counts, max_counts)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Where the forward pass of a batch belongs.

        While gradients are accumulated, it keeps a distributed model (one that has ``no_sync``) from synchronising
        them; only the batch that leads to an update does.
        """
        with self._sync_context(model):
            yield

    def update_params(
        self,
        loss: Tensor,
        step_kwargs: Mapping[str, Any] | None = None,
        zero_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Backward pass of a batch, then, if its window is complete, clipping, step and zeroing of gradients.

        Args:
            loss: Mean loss of the batch, a single number with its graph.
            step_kwargs: Arguments of the optimizer's ``step``.
            zero_kwargs: Arguments of the optimizer's ``zero_grad``.

        Raises:
            ContractError: The loss is no single number, or has no graph.
            DataError: The loss is not finite.
        """
        check_loss(loss)
        done = self._window.count
        self.backward(self.scale_loss(loss))
        # A subclass may leave the backward pass to a trainer, and need not know about counting.
        if self._window.count == done:
            self._window.advance()
        if self.should_update():
            self.step(**step_kwargs or {})
            self.zero_grad(**zero_kwargs or {})

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The share of the next batch's loss in its window: divided by the number of batches in it."""
        length = self._window.next_length
        return loss if length == 1 else loss / length

    def backward(self, loss: Tensor) -> None:
        """Backward pass of a scaled loss; counts the batch."""
        loss.backward()  # type: ignore[no-untyped-call]
        self._window.advance()

    def should_update(self) -> bool:
        """Whether the last batch that went backward completed its window."""
        return self._window.is_full

    def should_sync(self) -> bool:
        """Whether the next batch completes its window."""
        return self._window.next_completes

    def clip(self) -> None:
        """Clip the gradients as ``clip_grad`` asks, and note their norm in :attr:`grad_norm`."""
        if self.clip_grad is not None:
            self.grad_norm = clip_gradients(self._parameters(), **self.clip_grad)

    def step(self, **kwargs: Any) -> None:
        """Clip, then let the optimizer step."""
        self.clip()
        self.optimizer.step(**kwargs)

    def zero_grad(self, **kwargs: Any) -> None:
        """Drop the gradients; an incomplete window begins anew."""
        self.optimizer.zero_grad(**kwargs)
        self._window.discard()

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, and under ``accumulation`` what an exact resumption needs besides.

        That is the counts and, in the middle of a window, the gradients collected so far.
        """
        gradients = [_copied(parameter.grad) for parameter in self._parameters()] if self._window.is_open else None
        counts = {**dataclasses.asdict(self._window), "n_updates": self.n_updates}
        return {**self.optimizer.state_dict(), "accumulation": {"counts": counts, "gradients": gradients}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state; that of a bare optimizer is taken, too, and leaves the counts as they are.

        Raises:
            CheckpointError: The state is none, or does not fit the parameters or ``accumulative_counts``.
        """
        accumulation = state_dict.get("accumulation")
        if accumulation is not None and accumulation["gradients"] is not None:
            self._check_gradients(accumulation)
        try:
            self.optimizer.load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"the state does not fit the optimizer: {error}") from error
        if accumulation is not None:
            self._restore(**accumulation)

    def _end_window_at(self, total: int) -> None:
        length = self._window.length
        self._window.total = total
        if self._window.length != length:
            for parameter in self._parameters():
                if parameter.grad is not None:
                    # The batches so far were divided by another number.
                    parameter.grad *= length / self._window.length

    def _restore(self, counts: Mapping[str, int], gradients: list[Tensor | None] | None) -> None:
        places = {name: counts[name] for name in ("count", "start", "total")}
        self._window = AccumulationWindow(self._window.size, **places)
        self.n_updates = counts["n_updates"]
        self.optimizer.zero_grad()
        for parameter, gradient in zip(self._parameters(), gradients or [], strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter, copy=True)

    def _check_gradients(self, accumulation: Mapping[str, Any]) -> None:
        size = accumulation["counts"]["size"]
        if size != self._window.size:
            raise CheckpointError(
                f"the state was saved in the middle of a window of {size} batches, accumulative_counts is "
                f"{self._window.size} now; resume with {size}"
            )
        shapes = [None if gradient is None else gradient.shape for gradient in accumulation["gradients"]]
        present = [parameter.shape for parameter in self._parameters()]
        if len(shapes) != len(present) or any(
            saved not in (None, shape) for saved, shape in zip(shapes, present, strict=True)
        ):
            raise CheckpointError("the gradients in the state do not fit the optimizer's parameters")

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _sync_context(self, model: nn.Module) -> AbstractContextManager[Any]:
        no_sync = getattr(model, "no_sync", None)
        return no_sync() if callable(no_sync) and not self.should_sync() else nullcontext()

    def _count_update(self, *_: Any) -> None:
        self.n_updates += 1

    def _warn_of_batch_norm(self, model: nn.Module) -> None:
        if self._window.size == 1 or self._warned_of_batch_norm:
            return
        if any(isinstance(module, _BatchNorm) and module.training for module in model.modules()):
            self._warned_of_batch_norm = True
            logger.warning(
                "the model has batch-norm layers: with accumulative_counts=%d they still see one batch at a time, "
                "which is not the same as one large batch",
                self._window.size,
            )


def _copied(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.detach().clone()
