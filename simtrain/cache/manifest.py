"""The manifest: which segments a store on disk has. What it does not name does not exist."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from simtrain.cache.segments import SegmentEntry, sync_and_close
from simtrain.errors import CacheError
from simtrain.models.durable_files import sync_folder

logger = logging.getLogger("simtrain")

MANIFEST_FILE = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a store on disk holds.

    Attributes:
        fingerprint: Identity of what made the embeddings.
        dim: Number of dimensions.
        dtype: Type of the stored numbers.
        segments: The segments, oldest first.
    """

    fingerprint: str
    dim: int
    dtype: str
    segments: tuple[SegmentEntry, ...] = ()

    def with_segments(self, segments: Sequence[SegmentEntry]) -> Manifest:
        """The same manifest with other segments."""
        return replace(self, segments=tuple(segments))

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON values, with its format and checksum."""
        body = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "dim": self.dim,
            "dtype": self.dtype,
            "segments": [entry.to_dict() for entry in self.segments],
        }
        return {**body, "xxh3": body_checksum(body)}


def body_checksum(body: dict[str, Any]) -> str:
    """Checksum of a manifest's values."""
    return xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True).encode())


def read_manifest(folder: Path, expected: Manifest) -> Manifest:
    """Read a store's manifest.

    Args:
        folder: Folder of the store.
        expected: What the store should hold; its segments are ignored.

    Returns:
        The manifest. One without segments if there is none yet, or if it is damaged (this is logged).

    Raises:
        CacheError: It was written in another format, or for other embeddings.
    """
    try:
        body = json.loads((folder / MANIFEST_FILE).read_bytes())
        checksum = body.pop("xxh3")
    except FileNotFoundError:
        return expected.with_segments(())
    except OSError as error:
        raise CacheError(f"cannot read the cache in {folder}: {error.strerror}") from error
    except (ValueError, AttributeError, KeyError, TypeError):
        return damaged_manifest(folder, expected)
    if body_checksum(body) != checksum:
        return damaged_manifest(folder, expected)
    return checked_manifest(folder, body, expected)


def damaged_manifest(folder: Path, expected: Manifest) -> Manifest:
    """Say that a manifest is damaged and go on without its segments."""
    logger.warning("cache %s: the manifest is damaged; its embeddings are computed again", folder)
    return expected.with_segments(())


def checked_manifest(folder: Path, body: dict[str, Any], expected: Manifest) -> Manifest:
    """Build the manifest from values that are whole, if they are those that were expected."""
    if body["format"] != FORMAT:
        raise CacheError(
            f"the cache in {folder} has format {body['format']}, this version of simtrain reads format {FORMAT}; "
            f"use another save_dir or remove the folder"
        )
    for name in ("fingerprint", "dim", "dtype"):
        if body[name] != getattr(expected, name):
            raise CacheError(
                f"the cache in {folder} was written for {name} {body[name]!r}, expected {getattr(expected, name)!r}; "
                f"use another save_dir or remove the folder"
            )
    return expected.with_segments([SegmentEntry(**entry) for entry in body["segments"]])


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace a store's manifest; readers see the old one or the new one, also after a crash."""
    new = folder / f"{MANIFEST_FILE}.new"
    file = new.open("wb")
    file.write(json.dumps(manifest.to_dict(), indent=1).encode())
    sync_and_close(file)
    os.replace(new, folder / MANIFEST_FILE)
    sync_folder(folder)
