from __future__ import annotations

import os
from pathlib import Path

import pytest

from simtrain.errors import ServableError
from simtrain.models.new_folder import write_new_folder


def write(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("whole")


@pytest.mark.parametrize("kind", ["missing", "empty", "nested", "link"])
def test_new_and_empty_folders_are_filled(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a" / "b" / "c" if kind == "nested" else tmp_path / "a"
    if kind == "empty":
        path.mkdir()
    if kind == "link":
        (tmp_path / "real").mkdir()
        path.symlink_to(tmp_path / "real")
    write_new_folder(path, write)
    assert (path / "sub" / "file").read_text() == "whole"
    assert not [entry for entry in path.parent.iterdir() if ".tmp-" in entry.name]
    assert path.is_symlink() == (kind == "link")


def test_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ServableError, match=r"is there already and not an empty folder; give a new or an empty"):
            write_new_folder(path, write)
    assert (tmp_path / "file").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


class PowerLossError(BaseException):
    """Nothing that code catches by accident."""


@pytest.mark.parametrize("call", ["mkdir", "fsync", "replace"])
@pytest.mark.parametrize("exists", [True, False])
def test_interrupted_anywhere_the_folder_is_whole_or_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, exists: bool
) -> None:
    for stop_at in range(30):
        path = tmp_path / str(stop_at) / "model"
        path.parent.mkdir()
        if exists:
            path.mkdir()
        real, count = getattr(os, call), iter(range(1000))

        def stopping(*args: object, real: object = real, at: int = stop_at, count: object = count, **words: object):
            if next(count) == at:
                raise PowerLossError
            return real(*args, **words)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, stopping)
            patch.setattr("shutil.rmtree", lambda *args, **words: None)
            try:
                write_new_folder(path, write)
                finished = True
            except PowerLossError:
                finished = False
        whole = (path / "sub" / "file").exists()
        assert whole or path.exists() == exists
        assert whole or not exists or list(path.iterdir()) == []
        if finished:
            assert stop_at > 0
            assert whole
            return
    pytest.fail("it never came to an end")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing(folder: Path) -> None:
        write(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_new_folder(tmp_path / "new", failing)
    assert list(tmp_path.iterdir()) == []
