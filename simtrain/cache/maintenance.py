"""Looking after the caches in a folder: what there is, whether it is whole, and removing what is not wanted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from simtrain.cache.column_files import FileDamagedError, check_content, map_file
from simtrain.cache.manifest import MANIFEST_FILE, Manifest, ManifestDamagedError, load_manifest, write_manifest
from simtrain.cache.segment_folder import LOCK_FILE, SEGMENT_FILE
from simtrain.cache.segments import SegmentEntry
from simtrain.errors import CacheError, DataError

_OPENED_NAME = re.compile(r"(.+)-[0-9a-f]{32}")


@dataclass(frozen=True)
class Damage:
    """Something that is wrong with a cache.

    Attributes:
        what: What is wrong; names the file.
        rows: Embeddings that are computed again for it; None where nobody can tell.
    """

    what: str
    rows: int | None = None


@dataclass(frozen=True)
class CacheInfo:
    """What a cache on disk is.

    Attributes:
        path: Its folder.
        name: Name of the encoder in its model.
        encoder: Class of the encoder.
        rows: Stored items.
        dim: Number of dimensions.
        dtype: Type of the stored numbers.
        size: Bytes on the disk.
        last_used: When it was last opened or written to, in seconds since 1970.
        fault: Why its manifest cannot be read; empty where it can.
    """

    path: Path
    name: str
    encoder: str
    rows: int
    dim: int
    dtype: str
    size: int
    last_used: float
    fault: str = ""


def list_caches(folder: str | Path) -> list[CacheInfo]:
    """The caches in a folder and all folders below it, or the folder itself if it is one; last used first.

    Raises:
        DataError: There is no such folder.

    Example:
        >>> import tempfile
        >>> list_caches(tempfile.mkdtemp())
        []
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r}; give the save_dir of a CacheConfig")
    places = (Path(place) for place, _, _ in os.walk(folder))
    return sorted(map(describe_cache, filter(is_cache, places)), key=lambda info: -info.last_used)


def is_cache(folder: Path) -> bool:
    """Whether a folder is a cache, whole or damaged: it has a cache's manifest, or files that only a cache has."""
    try:
        body = json.loads((folder / MANIFEST_FILE).read_bytes())
        if isinstance(body, dict) and {"fingerprint", "segments", "xxh3"} <= set(body):
            return True
    except (OSError, ValueError):
        pass
    names = {path.name for path in folder.iterdir()} if os.access(folder, os.R_OK) else set()
    has_segments = any(SEGMENT_FILE.fullmatch(name) for name in names)
    return LOCK_FILE in names and (has_segments or _OPENED_NAME.fullmatch(folder.name) is not None)


def describe_cache(folder: Path) -> CacheInfo:
    """What a cache is, by its manifest and its files' sizes."""
    opened = _OPENED_NAME.fullmatch(folder.name)
    files = list(cache_files(folder))
    size = sum(path.stat().st_size for path in files)
    dated = folder / MANIFEST_FILE if (folder / MANIFEST_FILE).exists() else folder
    manifest, fault = find_manifest(folder)
    return CacheInfo(
        path=folder,
        name=opened[1] if opened else folder.name,
        encoder=manifest.encoder if manifest else "",
        rows=manifest.rows if manifest else 0,
        dim=manifest.dim if manifest else 0,
        dtype=manifest.dtype if manifest else "",
        size=size,
        last_used=dated.stat().st_mtime,
        fault=fault,
    )


def find_manifest(folder: Path) -> tuple[Manifest | None, str]:
    """A cache's manifest, and why there is none if it cannot be read; neither for a cache that was never filled."""
    try:
        return load_manifest(folder), ""
    except ManifestDamagedError:
        return None, f"{MANIFEST_FILE} is damaged"
    except FileNotFoundError:
        has_segments = any(SEGMENT_FILE.fullmatch(path.name) for path in folder.iterdir())
        return None, f"{MANIFEST_FILE} is missing" if has_segments else ""
    except CacheError as error:
        return None, str(error)


def cache_files(folder: Path) -> Iterator[Path]:
    """The files in a folder that belong to a cache; other people's are not among them."""
    own = {MANIFEST_FILE, f"{MANIFEST_FILE}.new", LOCK_FILE}
    return (path for path in folder.iterdir() if path.name in own or SEGMENT_FILE.fullmatch(path.name))


def verify_cache(folder: str | Path) -> list[Damage]:
    """Read all files of a cache and compare them with their checksums; empty if it is whole.

    Another process may use the cache meanwhile.

    Raises:
        CacheError: The folder is no cache.
    """
    folder = checked_cache(folder)
    manifest, fault = find_manifest(folder)
    if manifest is None:
        return [Damage(fault)] if fault else []
    return [damage for entry in manifest.segments for damage in segment_damages(folder, manifest, entry)]


def segment_damages(folder: Path, manifest: Manifest, entry: SegmentEntry) -> Iterator[Damage]:
    """What is wrong with a segment: at most one thing, since all of it is computed again."""
    for column in manifest.all_columns:
        path, file = folder / f"{entry.name}{column.ending}", entry.files[column.ending]
        try:
            check_content(path.name, map_file(path, column, file), file)
        except (FileDamagedError, OSError) as error:
            yield Damage(str(error), entry.rows)
            return


def remove_cache(folder: str | Path) -> bool:
    """Remove a cache: its own files, and its folder unless something else is in it.

    Returns:
        False if another process is writing to it; nothing was removed then.

    Raises:
        CacheError: The folder is no cache.
    """
    folder = checked_cache(folder)
    lock = taken_lock(folder)
    if lock is None:
        return False
    with lock:
        # First the manifest: it must never name a file that is gone.
        for path in sorted(cache_files(folder), key=lambda path: path.name != MANIFEST_FILE):
            path.unlink(missing_ok=True)
    if not any(path.name != LOCK_FILE for path in folder.iterdir()):
        (folder / LOCK_FILE).unlink(missing_ok=True)
        folder.rmdir()
    return True


def mend_cache(folder: str | Path) -> bool:
    """Remove what is damaged of a cache, so that the next filling computes it again; see :func:`remove_cache`."""
    folder = checked_cache(folder)
    manifest, fault = find_manifest(folder)
    if manifest is None:
        return remove_cache(folder) if fault else True
    lock = taken_lock(folder)
    if lock is None:
        return False
    with lock:
        manifest = load_manifest(folder)
        damaged = [entry for entry in manifest.segments if any(segment_damages(folder, manifest, entry))]
        write_manifest(folder, manifest.with_segments([e for e in manifest.segments if e not in damaged]))
        for entry in damaged:
            for column in manifest.all_columns:
                (folder / f"{entry.name}{column.ending}").unlink(missing_ok=True)
    return True


def taken_lock(folder: Path) -> FileLock | None:
    """The lock of a cache, taken; None if another process has it."""
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def checked_cache(folder: str | Path) -> Path:
    """The folder, if it is a cache."""
    folder = Path(folder)
    if not folder.is_dir() or not is_cache(folder):
        raise CacheError(f"{str(folder)!r} is not a cache; nothing was changed")
    return folder
