"""The tie of an index to the model that made its vectors."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from simtrain.errors import ServableError
from simtrain.models.servable import MODEL_FOLDER


def fingerprint(model: Path) -> str | None:
    """Digest of the model folder's ``config.json``, which each save renews; None where there is none."""
    try:
        return hashlib.sha256((model / MODEL_FOLDER.file).read_bytes()).hexdigest()
    except OSError:
        return None


def link_to(model: Path | None, index: Path) -> dict[str, Any]:
    """Settings that tie an index to a model.

    The model's path is kept relative to the index if both lie in one folder (they are moved together then).

    Args:
        model: The model's folder, or None for vectors from elsewhere.
        index: The index's folder.

    Raises:
        ServableError: ``model`` is no folder that ``SimilarityModel.save`` wrote.
    """
    if model is None:
        return {"model": None, "model_fingerprint": None}
    MODEL_FOLDER.read(model)
    here, there = index.absolute(), model.absolute()
    near = here.parent == there.parent or here.parent in there.parents or there in here.parents
    path = Path(os.path.relpath(there, here)).as_posix() if near else str(there)
    return {"model": path, "model_fingerprint": fingerprint(model)}


def linked_model(settings: dict[str, Any], index: Path) -> Path | None:
    """The model's folder, or None where the index names none."""
    return None if settings.get("model") is None else Path(os.path.normpath(index / str(settings["model"])))


def check_model(settings: dict[str, Any], index: Path) -> None:
    """Raise if the model was saved again after the index was built: their vectors no longer belong together.

    A model that was moved away says nothing about that and is let pass.

    Raises:
        ServableError: The model has changed.
    """
    model = linked_model(settings, index)
    now = None if model is None else fingerprint(model)
    if now is not None and now != settings.get("model_fingerprint"):
        raise ServableError(
            f"the model {model} was saved again after the index {index} was built from it; build the index again"
        )
