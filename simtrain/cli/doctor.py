"""``simtrain doctor``: versions, devices, caches, and what is missing for what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simtrain.cli.options import AsJson
from simtrain.cli.output import answering

if TYPE_CHECKING:
    from simtrain.cache.maintenance import CacheInfo

EXIT_BROKEN = 1
#: Packages that nothing works without.
CORE = ("torch", "lightning", "torchmetrics", "pytorch-metric-learning", "omegaconf", "safetensors", "numpy", "scipy")
_HUB_WORDS = ("HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def doctor(
    cache: Annotated[
        list[Path] | None, typer.Option("--cache", help="Folder of caches. Repeatable. Default: runs, if it is there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what this installation can do; exit code 1 if a package that everything needs is missing."""
    with answering(as_json) as answer:
        from simtrain.config.environment import environment, version_of

        broken = [name for name in CORE if version_of(name) is None]
        found = {**environment(), "missing": broken, "extras": _extras(), "caches": _caches(cache)}
        found["hub"] = {word: os.environ[word] for word in _HUB_WORDS if word in os.environ}
        answer(found, "\n".join(_lines(found)))
    if broken:
        raise typer.Exit(EXIT_BROKEN)


def _extras() -> dict[str, Any]:
    from simtrain.cli.extras import EXTRAS

    return {
        extra.name: {"purpose": extra.purpose, "missing": extra.missing, "pip": extra.pip if extra.missing else None}
        for extra in EXTRAS
    }


def _caches(folders: list[Path] | None) -> list[dict[str, Any]]:
    from simtrain.cache.maintenance import list_caches

    chosen = folders if folders else [Path("runs")] if Path("runs").is_dir() else []
    return [_cache_values(info) for folder in chosen for info in list_caches(folder)]


def _cache_values(info: CacheInfo) -> dict[str, Any]:
    return {"path": str(info.path), "encoder": info.encoder, "rows": info.rows, "bytes": info.size, "fault": info.fault}


def _lines(found: dict[str, Any]) -> list[str]:
    from simtrain.cli.cache import human_size

    lines = [f"simtrain {found['simtrain']}, Python {found['python']}, {found['platform']}, {found['cpus']} processors"]
    lines += [f"missing: {name}, which everything needs; run: pip install {name}" for name in found["missing"]]
    lines += ["", *(f"{name} {version}" for name, version in found["packages"].items()), ""]
    lines += [
        f"{one['device']}: {one['name']}" + (f", {human_size(one['bytes'])}" if one["bytes"] else "")
        for one in found["devices"]
    ] or ["no accelerator: everything runs on the processor"]
    lines.append("")
    for name, extra in found["extras"].items():
        state = f"without {', '.join(extra['missing'])}; run: {extra['pip']}" if extra["missing"] else "ready"
        lines.append(f"{name} ({extra['purpose']}): {state}")
    lines += [""] if found["caches"] or found["hub"] else []
    for cache in found["caches"]:
        state = f"damaged: {cache['fault']}" if cache["fault"] else f"{cache['rows']:,} rows of {cache['encoder']}"
        lines.append(f"cache {cache['path']}: {state}, {human_size(cache['bytes'])}")
    return lines + [f"{word}={value}" for word, value in found["hub"].items()]
