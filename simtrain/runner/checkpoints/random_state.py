"""Where the generators of random numbers of a process stand."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def random_state(device: torch.device | None = None) -> dict[str, Any]:
    """State of the global generators of torch (CPU and ``device``), NumPy and Python.

    Args:
        device: The device that this process computes on.

    Returns:
        Tensors and plain values only, so that ``torch.load(weights_only=True)`` reads them.

    Example:
        >>> before = random_state()
        >>> drawn = torch.rand(3), np.random.rand(), random.random()
        >>> restore_random_state(before)
        >>> torch.equal(drawn[0], torch.rand(3)), drawn[1:] == (np.random.rand(), random.random())
        (True, True)
    """
    version, words, gauss = random.getstate()
    numpy: dict[str, Any] = np.random.get_state(legacy=False)
    # The global generator may have been replaced by one of another kind, whose state may be anything.
    known = numpy["bit_generator"] == "MT19937"
    return {
        "torch": torch.get_rng_state(),
        "device": _of_device(device),
        "numpy": {**numpy, "state": _plain(numpy["state"])} if known else None,
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
    }


def restore_random_state(state: Mapping[str, Any], device: torch.device | None = None) -> None:
    """Put the generators where they stood.

    Args:
        state: What :func:`random_state` gave.
        device: The device that this process computes on.
    """
    torch.set_rng_state(state["torch"].cpu())
    module = _accelerator(device)
    if module is not None and state["device"] is not None:
        module.set_rng_state(state["device"].cpu(), *_index(device))
    if state["numpy"] is not None:
        inner = state["numpy"]["state"]
        key = inner["key"].numpy().astype(np.uint32)
        np.random.set_state({**state["numpy"], "state": {**inner, "key": key}})
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    return {"key": torch.from_numpy(state["key"].astype(np.int64)), "pos": int(state["pos"])}


def _of_device(device: torch.device | None) -> torch.Tensor | None:
    module = _accelerator(device)
    if module is None:
        return None
    found: torch.Tensor = module.get_rng_state(*_index(device))
    return found


def _accelerator(device: torch.device | None) -> Any:
    module = None if device is None or device.type == "cpu" else getattr(torch, device.type, None)
    return module if hasattr(module, "get_rng_state") else None


def _index(device: torch.device | None) -> tuple[Any, ...]:
    # Of MPS there is one.
    return (device,) if device is not None and device.type == "cuda" else ()
