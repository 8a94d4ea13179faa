"""Files of text, gzipped where their names say so: read, and written all or nothing."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOBase
from pathlib import Path
from typing import cast

from simtrain.errors import DataError


@contextmanager
def opened(path: Path, what: str) -> Iterator[TextIOBase]:
    """Open a file for reading.

    Args:
        path: The file.
        what: What it holds, for messages.

    Raises:
        DataError: There is no such file, or what is read is no UTF-8 or a damaged archive.
    """
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r} to read {what} from")
    try:
        with cast(
            "TextIOBase", (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig")
        ) as file:
            yield file
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as {what} in UTF-8: {error}") from None


@contextmanager
def draft(path: Path) -> Iterator[TextIOBase]:
    """Open a file for writing; it takes its place when all is written, and is removed when something fails."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with cast("TextIOBase", opener(beside, "wt", encoding="utf-8")) as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
