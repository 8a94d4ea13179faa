"""Files that survive a loss of power."""

from __future__ import annotations

import os
from pathlib import Path


def sync_file(file: Path) -> None:
    """Wait until the content of ``file`` is on the disk."""
    # Opened for writing: some systems refuse to flush what was opened for reading.
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until all files and folders in ``folder``, and it itself, are on the disk."""
    for entry in folder.rglob("*"):
        if entry.is_dir():
            sync_folder(entry)
        else:
            sync_file(entry)
    sync_folder(folder)
