"""The manifest: which segments a store on disk has. What it does not name does not exist."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from simtrain.cache.column_files import Column
from simtrain.cache.segments import KEYS, SegmentEntry
from simtrain.errors import CacheError
from simtrain.models.durable_files import sync_folder

MANIFEST_FILE = "manifest.json"
FORMAT = 2


@dataclass(frozen=True)
class Manifest:
    """What a store on disk holds.

    Attributes:
        fingerprint: Identity of what made the embeddings.
        dim: Number of dimensions.
        dtype: Type of the stored numbers.
        columns: Files of each segment beside the keys.
        segments: The segments, oldest first.
        encoder: What made the embeddings, in words; no part of the identity.
    """

    fingerprint: str
    dim: int
    dtype: str
    columns: tuple[Column, ...]
    segments: tuple[SegmentEntry, ...] = ()
    encoder: str = ""

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """Files of each segment."""
        return (*self.columns, KEYS)

    @property
    def rows(self) -> int:
        """Number of rows in all segments."""
        return sum(entry.rows for entry in self.segments)

    def with_segments(self, segments: Sequence[SegmentEntry]) -> Manifest:
        """The same manifest with other segments."""
        return replace(self, segments=tuple(segments))

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON values, with its format and checksum."""
        body = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "encoder": self.encoder,
            "dim": self.dim,
            "dtype": self.dtype,
            "columns": [asdict(column) for column in self.columns],
            "segments": [entry.to_dict() for entry in self.segments],
        }
        return {**body, "xxh3": body_checksum(body)}


class ManifestDamagedError(Exception):
    """A manifest does not match its checksum."""


def body_checksum(body: dict[str, Any]) -> str:
    """Checksum of a manifest's values."""
    return xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True).encode())


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a store, whatever the store holds.

    Raises:
        FileNotFoundError: There is none.
        ManifestDamagedError: It does not match its checksum.
        CacheError: It cannot be read, or was written in another format.
    """
    try:
        body = json.loads((folder / MANIFEST_FILE).read_bytes())
        checksum = body.pop("xxh3")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CacheError(f"cannot read the cache in {folder}: {error.strerror}") from error
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ManifestDamagedError(str(folder)) from error
    if body_checksum(body) != checksum:
        raise ManifestDamagedError(str(folder))
    if body.pop("format") != FORMAT:
        raise CacheError(
            f"the cache in {folder} was written in another format than {FORMAT}, which this version of simtrain "
            f"reads; use another save_dir or remove the folder"
        )
    columns = tuple(Column(**column) for column in body.pop("columns"))
    segments = tuple(SegmentEntry.from_dict(entry) for entry in body.pop("segments"))
    return Manifest(columns=columns, segments=segments, **body)


def read_manifest(folder: Path, expected: Manifest) -> Manifest:
    """Read a store's manifest.

    Args:
        folder: Folder of the store.
        expected: What the store should hold; its segments are ignored.

    Returns:
        The manifest. One without segments if there is none yet.

    Raises:
        ManifestDamagedError: It does not match its checksum.
        CacheError: It was written in another format, or for other embeddings.
    """
    try:
        found = load_manifest(folder)
    except FileNotFoundError:
        return expected.with_segments(())
    for name in ("fingerprint", "dim", "dtype", "columns"):
        if getattr(found, name) != getattr(expected, name):
            raise CacheError(
                f"the cache in {folder} was written for {name} {getattr(found, name)!r}, expected "
                f"{getattr(expected, name)!r}; use another save_dir or remove the folder"
            )
    return expected.with_segments(found.segments)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace a store's manifest; readers see the old one or the new one, also after a crash."""
    new = folder / f"{MANIFEST_FILE}.new"
    with new.open("wb") as file:
        file.write(json.dumps(manifest.to_dict(), indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, folder / MANIFEST_FILE)
    sync_folder(folder)


def note_use(folder: Path) -> None:
    """Remember when a store was last opened, as its manifest's time of change."""
    try:
        os.utime(folder / MANIFEST_FILE)
    except OSError:
        return  # there is none yet, or the folder is another user's
