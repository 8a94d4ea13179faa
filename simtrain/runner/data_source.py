"""Where one part of a job's data comes from, as its config says."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig

from simtrain.config import DATA_KINDS, plain
from simtrain.errors import ConfigError, nearest

TEST_KINDS = (*DATA_KINDS, "query_gallery")


@dataclass
class DataSource:
    """One file or folder of samples.

    Attributes:
        path: The file, or the folder of images.
        kind: ``pairs``, ``triplets``, ``groups``, or, for ``data.test``, ``query_gallery``: rows that say of themselves
            whether they are a query, in the gallery, or both. Default: ``data.kind``.
        columns: Role → column name. Default: ``data.columns``, unless the kind has other roles.
        split: Take only the rows whose column ``split`` says this.
        root: Folder that the items are paths in; see :func:`simtrain.data.read_groups`.
        on_error: ``raise`` or ``skip``: open every image now, and name or leave out those that cannot be read.
    """

    path: str
    kind: str
    columns: dict[str, str]
    split: str | None = None
    root: str | None = None
    on_error: str | None = None


def data_source(cfg: DictConfig, stage: str) -> DataSource:
    """The data of a stage, with what the section ``data`` says for all of them.

    Args:
        cfg: A config that has a value for ``data.<stage>``.
        stage: ``"train"``, ``"valid"`` or ``"test"``.

    Raises:
        ConfigError: It is described wrongly.

    Example:
        >>> from simtrain import load_cfg
        >>> cfg = load_cfg({"data": {"kind": "groups", "test": {"path": "a.csv", "kind": "query_gallery"}}})
        >>> data_source(cfg, "test").kind
        'query_gallery'
    """
    given, key = plain(cfg.data[stage]), f"data.{stage}"
    words = {"path": given} if isinstance(given, str) else given
    if not isinstance(words, dict) or not isinstance(words.get("path"), str):
        raise ConfigError(f"{key} should be a path, or a mapping with a path (and kind, columns, ...), got {given!r}")
    settings = [one.name for one in fields(DataSource)]
    for word, value in words.items():
        if word not in settings:
            raise ConfigError(f"{key} has no setting {word!r}; {nearest(str(word), settings)}")
        if value is not None and not isinstance(value, dict if word == "columns" else str):
            raise ConfigError(f"{key}.{word} should be a {'mapping' if word == 'columns' else 'text'}, got {value!r}")
    kinds = TEST_KINDS if stage == "test" else DATA_KINDS
    kind = words.get("kind") or cfg.data.kind
    if kind not in kinds:
        only = "; query_gallery is for data.test" if kind in TEST_KINDS else ""
        raise ConfigError(f"unknown {key}.kind {kind!r}; {nearest(kind, kinds)}{only}")
    if words.get("on_error") not in (None, "raise", "skip"):
        raise ConfigError(f"{key}.on_error should be raise or skip, got {words['on_error']!r}")
    alike = {"query_gallery": "groups"}.get(kind, kind) == cfg.data.kind
    columns = words.get("columns") or (plain(cfg.data.columns) if alike else {})
    return DataSource(**{**words, "kind": kind, "columns": _column_names(key, columns)})


def _column_names(key: str, columns: dict[str, Any]) -> dict[str, str]:
    # In YAML a column that is called 1 is a number.
    for role, name in columns.items():
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise ConfigError(f"columns of {key}: {role} should be the name of a column, got {name!r}")
    return {role: str(name) for role, name in columns.items()}
