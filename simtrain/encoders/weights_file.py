"""Weights of a module as a safetensors file."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from simtrain.errors import ServableError


def save_weights(module: nn.Module, file: Path) -> None:
    """Write all parameters and buffers of ``module``; tensors that share memory are written once."""
    save_model(module, str(file))


def load_weights(module: nn.Module, file: Path) -> None:
    """Read a file that :func:`save_weights` wrote into ``module``.

    Raises:
        ServableError: The file is missing, damaged, or does not fit the module; the message names the file.
    """
    if not file.is_file():
        raise ServableError(f"{file} is missing; the folder is incomplete or not one that simtrain saved")
    try:
        load_model(module, str(file))
    except (SafetensorError, OSError) as error:
        raise ServableError(f"{file} is damaged ({error}); save it again or copy the whole file") from error
    except RuntimeError as error:
        raise ServableError(f"{file} does not fit {type(module).__name__}: {error}") from error
