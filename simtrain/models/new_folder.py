"""Writing a folder that is there whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from simtrain.errors import ServableError
from simtrain.models.durable_files import sync_folder, sync_tree


def write_new_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside ``path``, and rename it once it is whole and on the disk.

    Args:
        path: The folder: missing or empty.
        write: Called with an empty folder, which it fills.

    Raises:
        ServableError: ``path`` is a file, or a folder with something in it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new"
        >>> write_new_folder(path, lambda folder: (folder / "file").touch())
        >>> [file.name for file in path.iterdir()]
        ['file']
    """
    target = path.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ServableError(f"{path} is there already and not an empty folder; give a new or an empty one")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.tmp-{secrets.token_hex(6)}")
    try:
        beside.mkdir()
        write(beside)
        sync_tree(beside)
        if os.name == "nt" and target.exists():  # Windows renames onto nothing only
            target.rmdir()
        os.replace(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(target.parent)
