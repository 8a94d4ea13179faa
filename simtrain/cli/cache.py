"""``simtrain cache``: what caches there are, whether they are whole, and removing them."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtrain.cli.options import AsJson
from simtrain.errors import ConfigError

if TYPE_CHECKING:
    from simtrain.cache.maintenance import CacheInfo

EXIT_DAMAGED = 1
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SPANS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

app = typer.Typer(name="cache", help="List, verify and prune embedding caches.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="A save_dir, or one cache in it.", show_default=False)]


@app.command("ls")
def list_(folder: Folder, as_json: AsJson = False) -> None:
    """List the caches in a folder, the last used first."""
    from simtrain.cache.maintenance import list_caches

    caches = list_caches(folder)
    if as_json:
        typer.echo(json.dumps([as_values(info) for info in caches], indent=2))
        return
    typer.echo("\n".join(table(caches)) if caches else f"no caches in {folder}")


@app.command()
def verify(folder: Folder, as_json: AsJson = False) -> None:
    """Compare all files with their checksums; exit code 1 if something is damaged."""
    from simtrain.cache.maintenance import list_caches, verify_cache

    found = [(info, verify_cache(info.path)) for info in list_caches(folder)]
    if as_json:
        values = [{**as_values(i), "damages": [vars(damage) for damage in damages]} for i, damages in found]
        typer.echo(json.dumps(values, indent=2))
    if not found and not as_json:
        typer.echo(f"no caches in {folder}")
    for info, damages in [] if as_json else found:
        for damage in damages:
            rows = "all its embeddings" if damage.rows is None else f"{damage.rows:,} embeddings"
            typer.echo(f"{info.path}: {damage.what}; {rows} will be computed again")
        if not damages:
            typer.echo(f"{info.path}: {info.rows:,} embeddings, whole")
    if any(damages for _, damages in found):
        raise typer.Exit(EXIT_DAMAGED)


@app.command()
def prune(
    folder: Folder,
    older_than: Annotated[str | None, typer.Option(help="Not used for this long: 12h, 30d, 8w.")] = None,
    larger_than: Annotated[str | None, typer.Option(help="Of more bytes than this: 500MB, 2GB.")] = None,
    name: Annotated[str | None, typer.Option(help="With an encoder name of this pattern: 'text*'.")] = None,
    damaged: Annotated[bool, typer.Option("--damaged", help="Of damaged caches, what is damaged.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the caches for which all given conditions hold. A cache that is being filled is left alone."""
    from simtrain.cache.maintenance import list_caches, mend_cache, remove_cache, verify_cache

    if older_than is None and larger_than is None and name is None and not damaged:
        raise ConfigError("say what to prune: --older-than, --larger-than, --name or --damaged (--name '*' for all)")
    if as_json and not (yes or dry_run):
        raise ConfigError("prune --json cannot ask; add --yes or --dry-run")
    now = datetime.now(timezone.utc).timestamp()
    age, size = as_seconds(older_than), as_bytes(larger_than)
    chosen = [
        info
        for info in list_caches(folder)
        if now - info.last_used > age
        and info.size > size
        and fnmatch(info.name, name or "*")
        and (not damaged or verify_cache(info.path))
    ]
    remove, verb = (mend_cache, "mended") if damaged else (remove_cache, "removed")
    if not as_json:
        typer.echo("\n".join(table(chosen)) if chosen else "nothing to prune")
    if chosen and not (yes or dry_run):
        what = "what is damaged of these" if damaged else "these"
        typer.confirm(f"remove {what} ({human_size(sum(info.size for info in chosen))})?", abort=True)
    results = [(info, "kept" if dry_run else verb if remove(info.path) else "in use") for info in chosen]
    if as_json:
        typer.echo(json.dumps([{**as_values(info), "result": result} for info, result in results], indent=2))
    for info, result in [] if as_json or dry_run else results:
        typer.echo(f"{info.path}: {result if result != 'in use' else 'another process fills it; left as it is'}")


def as_values(info: CacheInfo) -> dict[str, Any]:
    """A cache's description as JSON values."""
    used = datetime.fromtimestamp(info.last_used, timezone.utc).isoformat(timespec="seconds")
    return {**vars(info), "path": str(info.path), "last_used": used}


def table(caches: list[CacheInfo]) -> list[str]:
    """Lines of a table of caches."""
    rows = [("NAME", "ENCODER", "ROWS", "DIM", "DTYPE", "SIZE", "LAST USED", "FOLDER")]
    for info in caches:
        used = datetime.fromtimestamp(info.last_used).astimezone().strftime("%Y-%m-%d %H:%M")
        shape = (f"{info.rows:,}", str(info.dim), info.dtype) if not info.fault else ("damaged", "-", "-")
        rows.append((info.name, info.encoder or "-", *shape, human_size(info.size), used, str(info.path)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def human_size(size: float | int) -> str:
    """A number of bytes in words.

    Example:
        >>> human_size(768_000_000), human_size(12)
        ('768.0 MB', '12 B')
    """
    for unit, factor in reversed(UNITS.items()):
        if unit not in ("", "B") and size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def as_bytes(words: str | None) -> float:
    """Bytes that words such as "1.5GB" say; None says −1, which all are larger than.

    Example:
        >>> as_bytes("1.5GB")
        1500000000.0
    """
    return _number(words, UNITS, "a size such as 500MB or 2GB", str.upper)


def as_seconds(words: str | None) -> float:
    """Seconds that words such as "30d" say; None says −1, which all are older than.

    Example:
        >>> as_seconds("2h")
        7200.0
    """
    return _number(words, SPANS, "a time such as 12h, 30d or 8w", str.lower)


def _number(words: str | None, units: dict[str, int], kind: str, case: Any) -> float:
    if words is None:
        return -1.0
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]*)", words.strip())
    if found is None or case(found[2]) not in units:
        raise ConfigError(f"{kind} was expected, got {words!r}")
    return float(found[1]) * units[case(found[2])]
