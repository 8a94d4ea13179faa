"""The end of a process that has run with others."""

from __future__ import annotations

import atexit
import gc
import sys

import torch.distributed as dist


def leaves_group_at_exit() -> None:
    """Make this process leave its group of processes before Python shuts down, if it belongs to one.

    Threads of gloo may hold the tensors of the last exchange when a process ends. One that lets go of them while
    Python shuts down aborts a process that had done all its work (``terminate called without an active exception``,
    pytorch/pytorch#190489). Lightning leaves the group for NCCL only.
    """
    if dist.is_available() and dist.is_initialized():
        atexit.unregister(_leave_group)
        atexit.register(_leave_group)


def _leave_group() -> None:
    # A process that broke off does not wait for exchanges which the others may never join.
    if dist.is_initialized() and getattr(sys, "last_value", None) is None:
        gc.collect()  # what holds the group in a cycle keeps its threads
        dist.destroy_process_group()
