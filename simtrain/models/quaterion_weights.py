"""The ``weights.bin`` of quaterion-models: pickles, read without running anything that they ask for."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simtrain.errors import ServableError
from simtrain.heads.sequential_layers import LAYERS, describe_layer, sequential_layer


def read_weights(module: nn.Module, file: Path) -> None:
    """Read a state dict into ``module``.

    Raises:
        ServableError: The file is missing or damaged, holds anything else, or does not fit.
    """
    weights = _unpickled(file, "tensors")
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ServableError(f"{file} does not hold tensors by name; save the model again")
    try:
        module.load_state_dict(weights)
    except Exception as error:  # names that are no texts, sizes that differ
        reason = " ".join(str(error).split())
        raise ServableError(f"{file} does not fit {type(module).__name__}: {reason}") from error


def write_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    """Write a state dict for the CPU."""
    torch.save({name: tensor.detach().cpu().clone() for name, tensor in weights.items()}, file)


def read_layers(file: Path) -> list[nn.Module]:
    """Read the modules of a ``torch.nn.Sequential`` that was pickled whole.

    Only layers of :data:`~simtrain.heads.sequential_layers.LAYERS` are unpickled. Each is built anew from its
    settings and given the weights: whatever else the file has attached to it does not come along.

    Raises:
        ServableError: The file is missing or damaged, or holds anything else.
    """
    if not hasattr(torch.serialization, "safe_globals"):
        raise ServableError(f"{file} is a pickle of layers, which can be read safely from torch 2.5 on; update torch")
    layers = [getattr(nn, name) for name in LAYERS if hasattr(nn, name)]
    with torch.serialization.safe_globals([nn.Sequential, set, *layers]):
        pickled = _unpickled(file, f"torch.nn.Sequential of {', '.join(LAYERS)}")
    if type(pickled) is not nn.Sequential:
        raise ServableError(f"{file} must hold a torch.nn.Sequential, got {type(pickled).__name__}")
    try:
        return [_rebuilt(layer, f"layer {i}") for i, layer in enumerate(pickled)]
    except Exception as error:  # a crafted layer may lack anything
        raise ServableError(f"{file} holds layers that cannot be rebuilt: {error}") from error


def write_layers(layers: Sequence[nn.Module], file: Path) -> None:
    """Pickle layers as a ``torch.nn.Sequential`` for the CPU.

    Raises:
        ConfigError: A layer is none of :data:`~simtrain.heads.sequential_layers.LAYERS`.
    """
    torch.save(nn.Sequential(*(_rebuilt(layer, f"layer {i}") for i, layer in enumerate(layers))), file)


def _rebuilt(layer: nn.Module, place: str) -> nn.Module:
    fresh = sequential_layer(describe_layer(layer, place), None, place)
    fresh.load_state_dict(layer.state_dict())
    return fresh


def _unpickled(file: Path, accepted: str) -> Any:
    if not file.is_file():
        raise ServableError(f"{file} is missing; copy the whole folder")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message goes on to say how the file could be run all the same.
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            raise ServableError(f"{file} is damaged; copy it again or save the model again") from None
        raise ServableError(
            f"{file} asks for {named.group(1)}, and no code is loaded from files; it may hold {accepted}"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise ServableError(f"{file} is damaged ({type(error).__name__}); copy it again") from error
