"""The exception tree of simtrain, and the one place that asks for optional packages.

SimtrainError
├── ConfigError (ValueError)          a setting, a config file or a combination of parts is wrong
│   └── UnknownNameError (KeyError)   a name that nothing is known under, or that is taken
├── ContractError (TypeError)         a model, step or batch is not of the kind that the contract asks for
├── DataError (ValueError)            samples, files of samples or embeddings are wrong
├── CacheError (RuntimeError)         an embedding cache cannot be written or trusted
├── CheckpointError (RuntimeError)    a checkpoint is missing, damaged or does not fit
├── ServableError (ValueError)        a model or index folder is missing, damaged or refused
└── MissingExtraError (ImportError)   a feature needs a package that is not installed
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class SimtrainError(Exception):
    """Base of every error that simtrain raises on purpose."""


class ConfigError(SimtrainError, ValueError):
    """A setting, a config file or a combination of parts is wrong."""


class UnknownNameError(ConfigError, KeyError):
    """A name that nothing is known under, or that is taken already."""

    # KeyError shows the repr of its message, quotes and all.
    __str__ = Exception.__str__


class ContractError(SimtrainError, TypeError):
    """A model, a step's result or a batch is not of the kind that the contract asks for."""


class DataError(SimtrainError, ValueError):
    """Samples, files of samples or embeddings are wrong."""


class CacheError(SimtrainError, RuntimeError):
    """An embedding cache cannot be written or trusted."""


class CheckpointError(SimtrainError, RuntimeError):
    """A checkpoint is missing, damaged or does not fit the model."""


class ServableError(SimtrainError, ValueError):
    """A saved model or index folder is missing, damaged or refused."""


class MissingExtraError(SimtrainError, ImportError):
    """A feature needs an optional package that is not installed."""


def import_extra(module: str, extra: str) -> ModuleType:
    """Import an optional package, or say how to install it.

    Args:
        module: Name of the module to import, for example ``"qdrant_client"``.
        extra: The extra of simtrain that brings it, for example ``"index"``.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: The package is not installed.

    Example:
        >>> import_extra("json", "text").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A package that is there but lacks one of its own needs is another fault: keep its message.
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"this feature needs the package {module!r}, which is not installed; run: pip install 'simtrain[{extra}]'"
        ) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Word the end of an "unknown name" message: the nearest known name first, then all of them.

    Args:
        name: What was given.
        known: The names that would have been accepted.

    Returns:
        A clause such as ``"did you mean 'scale'? Accepted: 'scale', 'symmetric'"``.

    Example:
        >>> nearest("scal", ["symmetric", "scale"])
        "did you mean 'scale'? Accepted: 'scale', 'symmetric'"
    """
    names = sorted(set(known))
    accepted = ", ".join(repr(n) for n in names) if names else "none"
    close = difflib.get_close_matches(str(name), names, n=1) or [n for n in names if n.lower() == str(name).lower()]
    return f"did you mean {close[0]!r}? Accepted: {accepted}" if close else f"accepted: {accepted}"
