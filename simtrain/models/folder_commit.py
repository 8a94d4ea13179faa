"""Changing a folder all at once: parts first, then one small file that names them.

::

    folder/
        config.json            names the parts folder; replacing this file is the commit
        README.md              what readers see beside it, replaced right after the commit
        parts-1a2b3c4d5e6f/    written and flushed before that; the former one is removed after it

Interrupted at any moment, the folder holds the old state or the new one.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from simtrain.encoders.settings_file import read_settings, write_settings
from simtrain.errors import ServableError
from simtrain.models.durable_files import sync_file, sync_folder, sync_tree


class FolderFormat:
    """One kind of folder that is changed all at once.

    Args:
        name: Name of the format, kept in the file that commits.
        version: Version that is written, and the only one that is read.
        file: Name of the file that commits.
        prefix: Beginning of the parts folders' names.
        beside: Names of further files that may be replaced with the state; nothing is read from them.
    """

    def __init__(self, name: str, version: int, file: str, prefix: str, beside: Collection[str] = ()) -> None:
        self.name = name
        self.version = version
        self.file = file
        self._prefix = prefix
        self._parts = re.compile(rf"{prefix}-[0-9a-f]{{12}}")
        files = "|".join(re.escape(each) for each in (file, *beside))
        self._left_over = re.compile(rf"{prefix}-[0-9a-f]{{12}}|(?:{files})\.tmp-[0-9a-f]{{12}}")

    def commit(
        self,
        path: Path,
        settings: Mapping[str, Any],
        write: Callable[[Path], None],
        beside: Mapping[str, str] | None = None,
    ) -> None:
        """Replace the state of the folder ``path``; it is made where it is missing.

        Args:
            path: The folder. Files in it that are of no such state are not touched.
            settings: JSON values to keep in the file that commits.
            write: Called with an empty parts folder, which it fills.
            beside: Texts of further files, by name. They are written before the commit and put in place after it.

        Raises:
            ServableError: ``path`` is a file, or its committing file belongs to something else.
        """
        self._check_target(path)
        path.mkdir(parents=True, exist_ok=True)
        mark = secrets.token_hex(6)
        parts, file = path / f"{self._prefix}-{mark}", path / f"{self.file}.tmp-{mark}"
        others = {name: path / f"{name}.tmp-{mark}" for name in beside or {}}
        try:
            parts.mkdir()
            write(parts)
            write_settings(file, {**self._header(), "parts": parts.name, **settings})
            for name, other in others.items():
                other.write_text((beside or {})[name], encoding="utf-8")
            sync_tree(parts)
            for written in (file, *others.values()):
                sync_file(written)
        except BaseException:
            shutil.rmtree(parts, ignore_errors=True)
            for written in (file, *others.values()):
                written.unlink(missing_ok=True)
            raise
        sync_folder(path)
        os.replace(file, path / self.file)
        for name, other in others.items():
            os.replace(other, path / name)
        sync_folder(path)
        self._remove_left_over(path, keep=parts.name)

    def read(self, path: Path) -> tuple[dict[str, Any], Path]:
        """Settings of the folder ``path``, and its parts folder.

        Raises:
            ServableError: Something is missing, damaged, of another kind, or of another version of the format.
        """
        if not path.is_dir():
            raise ServableError(f"there is no folder {path}; give a folder of the format {self.name!r}")
        file = path / self.file
        settings = read_settings(file)
        if settings.get("format") != self.name:
            raise ServableError(f"{file} is not of the format {self.name!r}, it says {settings.get('format')!r}")
        if settings.get("format_version") != self.version:
            raise ServableError(
                f"{file} has format version {settings.get('format_version')!r}, written by simtrain "
                f"{settings.get('simtrain_version')!r}; this simtrain reads version {self.version}: install that one"
            )
        parts = settings.get("parts")
        if not isinstance(parts, str) or not self._parts.fullmatch(parts):
            raise ServableError(f"{file} names no parts folder, it says {parts!r}")
        if not (path / parts).is_dir():
            raise ServableError(f"{path / parts} is missing, which {file} names; copy the whole folder")
        return settings, path / parts

    def is_free(self, path: Path) -> bool:
        """Whether ``path`` is missing, empty, of this format, or left over by an interrupted first commit."""
        if not path.is_dir():
            return not path.exists()
        if (path / self.file).exists():
            return self._is_ours(path)
        return all(self._left_over.fullmatch(entry.name) for entry in path.iterdir())

    def _header(self) -> dict[str, Any]:
        return {"format": self.name, "format_version": self.version, "simtrain_version": _simtrain_version()}

    def _check_target(self, path: Path) -> None:
        if path.exists() and not path.is_dir():
            raise ServableError(f"{path} is a file; give a folder")
        if (path / self.file).exists() and not self._is_ours(path):
            raise ServableError(f"{path / self.file} belongs to something else and is not overwritten; save elsewhere")

    def _is_ours(self, path: Path) -> bool:
        try:
            return read_settings(path / self.file).get("format") == self.name
        except ServableError:
            return False

    def _remove_left_over(self, path: Path, keep: str) -> None:
        for entry in path.iterdir():
            if entry.name == keep or not self._left_over.fullmatch(entry.name) or entry.is_symlink():
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _simtrain_version() -> str:
    try:
        return metadata.version("simtrain")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
