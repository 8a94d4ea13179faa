"""The data of a training job: reading what its config names, of whichever kind each part is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch.utils.data import Dataset

from simtrain.data import (
    QueryGallery,
    SimilarityGroupDataset,
    read_groups,
    read_image_folder,
    read_pairs,
    read_query_gallery,
    read_triplets,
)
from simtrain.errors import ConfigError
from simtrain.runner.data_source import DataSource, data_source

STAGES = ("train", "valid", "test")


def read_data(cfg: DictConfig) -> dict[str, Dataset[Any] | QueryGallery]:
    """Read the data that a config names, by stage; those that it does not name are left out.

    Groups of one label have one number in all of them: that of the training data, further labels are numbered on.

    Raises:
        ConfigError: A stage is described wrongly.
        DataError: A file or folder is wrong.
    """
    data = {stage: read_source(stage, data_source(cfg, stage)) for stage in STAGES if cfg.data[stage] is not None}
    train = data.get("train")
    if isinstance(train, SimilarityGroupDataset):
        for stage in ("valid", "test"):
            part = data.get(stage)
            if isinstance(part, SimilarityGroupDataset):
                data[stage] = part.numbered_like(train.label_names)
    return data


def read_source(stage: str, source: DataSource) -> Dataset[Any] | QueryGallery:
    """Read one file or folder; ``stage`` is for messages."""
    folder = Path(source.path).is_dir()
    if folder and source.kind != "groups":
        raise ConfigError(
            f"data.{stage}: {source.path!r} is a folder, which is read as images in one sub-folder a group; the kind "
            f"should be 'groups' then, got {source.kind!r}"
        )
    readers: dict[str, Callable[[str, DataSource], Dataset[Any] | QueryGallery]] = {
        "pairs": _pairs,
        "triplets": _triplets,
        "groups": _folder if folder else _groups,
        "query_gallery": _test,
    }
    return readers[source.kind](stage, source)


def _pairs(stage: str, source: DataSource) -> Dataset[Any]:
    _refuse(stage, source, "split", "root", "on_error")
    return read_pairs(source.path, source.columns)


def _triplets(stage: str, source: DataSource) -> Dataset[Any]:
    _refuse(stage, source, "split", "root", "on_error")
    return read_triplets(source.path, source.columns)


def _groups(stage: str, source: DataSource) -> Dataset[Any]:
    how: dict[str, Any] = {"split": source.split, "root": source.root, "on_error": source.on_error}
    return read_groups(source.path, source.columns, **how)


def _folder(stage: str, source: DataSource) -> Dataset[Any]:
    _refuse(stage, source, "split", "root")
    how: Any = source.on_error or "raise"
    return read_image_folder(source.path, on_error=how)


def _test(stage: str, source: DataSource) -> QueryGallery:
    _refuse(stage, source, "on_error")
    return read_query_gallery(source.path, source.split, source.columns, root=source.root)


def _refuse(stage: str, source: DataSource, *words: str) -> None:
    for word in words:
        if getattr(source, word) is not None:
            what = "a folder of images" if Path(source.path).is_dir() else f"data of the kind {source.kind!r}"
            raise ConfigError(f"data.{stage}.{word} does not go with {what}; leave it out")
