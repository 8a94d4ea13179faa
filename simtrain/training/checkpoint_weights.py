"""Weights out of a checkpoint file, and into a model."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from simtrain.errors import CheckpointError

_logger = logging.getLogger(__name__)

# Where training programs keep the weights, beside the optimizer's state, the epoch and so on.
WEIGHT_KEYS = ("model", "state_dict", "model_state_dict")
# torch's name for what a module saves beside its tensors; the value may be any plain container.
EXTRA_STATE = "_extra_state"
_ZIP_HEAD = b"PK\x03\x04"
_PICKLE_HEAD = b"\x80"
_SHOWN = 5


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read the weights of a checkpoint file, on the CPU, without running anything that the file holds.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote: a state dict, or a dict that holds one under
            ``model``, ``state_dict`` (Lightning, mmengine) or ``model_state_dict``.

    Returns:
        Name → tensor, and the extra state of modules that have one. Entries of other kinds are left out. Large files
        are mapped, not read: do not overwrite the file while the tensors are in use.

    Raises:
        CheckpointError: The file is missing, damaged, without tensors, or holds objects, which are never loaded.

    Example:
        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "model.pt")
        >>> torch.save({"model": nn.Linear(2, 1).state_dict(), "epoch": 3}, file)
        >>> list(read_weights(file))
        ['weight', 'bias']
    """
    file = Path(path)
    head = _read_head(file)
    content = _read_safetensors(file) if _is_safetensors(file, head) else _read_torch(file, head)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds no state dict, but a value of {type(content)}; {_how_to_save()}")
    weights = _find_weights(content)
    if not weights:
        entries = _some(str(key) for key in content)
        raise CheckpointError(f"{file} holds no tensors, only {entries or 'an empty dict'}; {_how_to_save()}")
    return weights


def read_torch_file(path: str | Path) -> Any:
    """Read a file that ``torch.save`` wrote, on the CPU: tensors and plain containers, never code or objects.

    Raises:
        CheckpointError: The file is missing or damaged, or holds anything else.
    """
    file = Path(path)
    return _read_torch(file, _read_head(file))


def load_weights(model: nn.Module, path: str | Path) -> list[str]:
    """Load a checkpoint file into ``model`` as far as names match.

    The prefixes that DataParallel (``module.``) and torch.compile (``_orig_mod.``) put before names do not matter.
    Names that only the file has are logged as a warning. Values are copied: the model keeps its dtypes and devices.

    Args:
        model: What to load into; unchanged if an error is raised. (Parts that translate checkpoints themselves, by
            state-dict hooks, check shapes while they load: there an error can come after other parts were loaded.)
        path: A file that :func:`read_weights` can read.

    Returns:
        Names of the model that the file does not have; ``[]`` for a full match.

    Raises:
        CheckpointError: The file cannot be read, no name matches, or shapes differ.

    Example:
        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "model.pt")
        >>> torch.save({"weight": torch.ones(1, 2)}, file)
        >>> load_weights(nn.Linear(2, 1), file)
        ['bias']
    """
    return load_named_tensors(model, read_weights(path), str(path))


def load_named_tensors(model: nn.Module, weights: Mapping[str, Any], source: str) -> list[str]:
    """Do what :func:`load_weights` does with weights that are read already; ``source`` names them in messages."""
    own = model.state_dict(keep_vars=True)
    found = _rename(model, weights, own)
    matched = [name for name in found if name in own]
    if not matched:
        raise CheckpointError(
            f"no name in {source} matches {type(model).__name__}: the file has {_some(weights) or 'none'}, "
            f"the model has {_some(own) or 'none'}"
        )
    _check_targets(model, found, own, source)
    try:
        missing = model.load_state_dict(found, strict=False).missing_keys
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{source} does not fit {type(model).__name__}: {reason}") from error
    unexpected = [name for name in found if name not in own]
    if unexpected:
        _logger.warning("%s: %d names are not in the model: %s", source, len(unexpected), _some(unexpected))
    # A tensor that has several names is loaded by any of them.
    loaded = {id(own[name]) for name in matched if isinstance(own[name], Tensor)}
    return [name for name in missing if id(own.get(name)) not in loaded]


def _read_head(file: Path) -> bytes:
    if file.is_dir():
        raise CheckpointError(f"{file} is a folder; give the path of the weights file in it")
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint file {str(file)!r}")
    try:
        with file.open("rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    if not head:
        raise CheckpointError(f"{file} is empty; save or copy it again")
    return head


def _is_safetensors(file: Path, head: bytes) -> bool:
    # The format: the length of the header in 8 bytes, then the header, which is JSON.
    return file.suffix == ".safetensors" or head[8:] == b"{"


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged or not a safetensors file ({error}); copy the whole file") from error


def _read_torch(file: Path, head: bytes) -> Any:
    try:
        with warnings.catch_warnings():
            # torch warns of pickles and archives of other kinds, and then raises what is told below.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(file, map_location="cpu", weights_only=True, mmap=head.startswith(_ZIP_HEAD))
    except pickle.UnpicklingError as error:
        if not head.startswith((_ZIP_HEAD, _PICKLE_HEAD)):
            raise CheckpointError(f"{file} is no checkpoint; {_how_to_save()}") from error
        raise CheckpointError(_refusal(file, str(error))) from error
    except Exception as error:  # bytes that are no checkpoint make the unpickler fail in any way at all
        if "TorchScript" in str(error):
            raise CheckpointError(_refusal(file, "GLOBAL TorchScript code")) from error
        reason = str(error).splitlines()[0] if isinstance(error, (RuntimeError, OSError)) else "its content is cut off"
        raise CheckpointError(f"{file} is damaged or no checkpoint ({reason}); copy or save it again") from error


def _refusal(file: Path, message: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    what = f"holds {found[1]}" if found else "is damaged or holds more"
    return f"{file} {what}, but only tensors and plain containers are loaded, never code or objects; {_how_to_save()}"


def _how_to_save() -> str:
    return "save the weights alone: torch.save(model.state_dict(), path), or a .safetensors file"


def _find_weights(content: Mapping[Any, Any]) -> dict[str, Any]:
    for part in (*(content.get(key) for key in WEIGHT_KEYS), content):
        if isinstance(part, Mapping) and any(isinstance(value, Tensor) for value in part.values()):
            kept = OrderedDict((str(n), v) for n, v in part.items() if isinstance(v, Tensor) or _is_extra(n))
            # Versions of the modules, by which torch translates what older ones saved.
            setattr(kept, "_metadata", getattr(part, "_metadata", None))  # noqa: B010 - a plain dict has no such field
            return kept
    return {}


def _is_extra(name: Any) -> bool:
    return str(name).rpartition(".")[2] == EXTRA_STATE


def _rename(model: nn.Module, weights: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The weights under the model's names, where names differ in wrappers' prefixes only."""
    by_bare_name = {_bare(name): name for name in own}
    renamed: OrderedDict[str, Any] = OrderedDict()
    for name, value in weights.items():
        target = name if name in own else by_bare_name.get(_bare(name), name)
        renamed[name if target in weights else target] = value
    versions = {_bare(name): value for name, value in (getattr(weights, "_metadata", None) or {}).items()}
    if versions:
        named = {name: versions.get(_bare(name)) for name, _ in model.named_modules()}
        setattr(renamed, "_metadata", {name: value for name, value in named.items() if value})  # noqa: B010 - see above
    return renamed


def _bare(name: str) -> str:
    """A name without the prefixes that wrappers add: ``module._orig_mod.fc.weight`` → ``fc.weight``."""
    return re.sub(r"^module(\.|$)", "", re.sub(r"(^|(?<=\.))_orig_mod(\.|$)", "", name)).rstrip(".")


def _check_targets(model: nn.Module, found: Mapping[str, Any], own: Mapping[str, Any], source: str) -> None:
    translated = _translated_parts(model)
    differing = []
    for name, value in found.items():
        target = own.get(name)
        if not isinstance(target, Tensor) or not isinstance(value, Tensor) or is_lazy(target):
            continue
        if target.is_meta:
            raise CheckpointError(f"{name!r} of the model has no memory (meta device); call model.to_empty() first")
        if target.shape != value.shape and not name.startswith(translated):
            differing.append(f"{name!r} is {tuple(value.shape)} in the file and {tuple(target.shape)} in the model")
    if differing:
        more = f" (and {len(differing) - _SHOWN} more)" if len(differing) > _SHOWN else ""
        raise CheckpointError(f"{source} does not fit {type(model).__name__}: {'; '.join(differing[:_SHOWN])}{more}")


def _translated_parts(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the modules that translate checkpoints themselves: only they know which shapes fit."""
    prefixes = []
    for name, module in model.named_modules():
        own_loader = type(module)._load_from_state_dict is not nn.Module._load_from_state_dict
        foreign = own_loader and not type(module).__module__.startswith("torch.")
        if foreign or module._load_state_dict_pre_hooks:
            prefixes.append(f"{name}." if name else "")
    return tuple(prefixes)


def _some(names: Iterable[str]) -> str:
    """The first names, quoted, and how many more there are."""
    listed = list(names)
    more = f" (and {len(listed) - _SHOWN} more)" if len(listed) > _SHOWN else ""
    return ", ".join(repr(name) for name in listed[:_SHOWN]) + more
