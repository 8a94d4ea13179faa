from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from simtrain.errors import ServableError
from simtrain.models.folder_commit import FolderFormat

FORMAT = FolderFormat("test-format", version=1, file="state.json", prefix="parts")


def writing(value: str) -> Callable[[Path], None]:
    def write(parts: Path) -> None:
        (parts / "sub").mkdir()
        (parts / "sub" / "value").write_text(value)

    return write


def value_in(path: Path) -> str:
    settings, parts = FORMAT.read(path)
    value = (parts / "sub" / "value").read_text()
    assert settings["value"] == value
    return value


def commit(path: Path, value: str) -> None:
    FORMAT.commit(path, {"value": value}, writing(value))


def test_commit_replaces_the_state_and_touches_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder"
    commit(path, "one")
    (path / "notes.txt").write_text("mine")
    (path / "parts-of-mine").mkdir()
    commit(path, "two")
    assert value_in(path) == "two"
    assert (path / "notes.txt").read_text() == "mine"
    assert len(list(path.iterdir())) == 4


WITH_NOTES = FolderFormat("test-format", version=1, file="state.json", prefix="parts", beside=("notes.md",))


def commit_with_notes(path: Path, value: str) -> None:
    WITH_NOTES.commit(path, {"value": value}, writing(value), beside={"notes.md": f"about {value}"})


def test_files_beside_are_replaced_with_the_state(tmp_path: Path) -> None:
    for value in ("one", "two"):
        commit_with_notes(tmp_path, value)
        assert value_in(tmp_path) == value
        assert (tmp_path / "notes.md").read_text() == f"about {value}"
        assert len(list(tmp_path.iterdir())) == 3
    WITH_NOTES.commit(tmp_path, {"value": "three"}, writing("three"))
    assert (tmp_path / "notes.md").read_text() == "about two"


class PowerLossError(BaseException):
    """Nothing that code catches by accident."""


CALLS = ["mkdir", "fsync", "replace"]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("call", CALLS)
def test_interrupted_anywhere_the_old_or_the_new_state_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, first: bool
) -> None:
    """Every call that changes the disk is interrupted once: before it is made, with no clean-up after it."""
    outcomes = set()
    for stop_at in range(40):
        path = tmp_path / str(stop_at)
        if not first:
            commit(path, "old")
        finished = interrupted_commit(path, monkeypatch, call, stop_at)
        state = value_in(path) if (path / "state.json").exists() else None
        assert state in (("new", None) if first else ("new", "old"))
        assert finished is False or state == "new"
        outcomes.add(state)
        assert FORMAT.is_free(path)
        commit(path, "next")
        assert value_in(path) == "next"
        assert len(list(path.iterdir())) == 2
        if finished:
            break
    assert "new" in outcomes
    assert len(outcomes) == 2


@pytest.mark.parametrize("call", CALLS)
def test_files_beside_never_run_ahead_of_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    for stop_at in range(40):
        path = tmp_path / str(stop_at)
        commit_with_notes(path, "old")
        finished = interrupted_commit(path, monkeypatch, call, stop_at, commit_with_notes)
        notes, state = (path / "notes.md").read_text(), value_in(path)
        assert (notes, state) in (("about old", "old"), ("about old", "new"), ("about new", "new"))
        commit_with_notes(path, "next")
        assert (path / "notes.md").read_text() == "about next"
        assert len(list(path.iterdir())) == 3
        if finished:
            assert (notes, state) == ("about new", "new")
            return
    pytest.fail("it never came to an end")


def interrupted_commit(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    stop_at: int,
    commit: Callable[[Path, str], None] = commit,
) -> bool:
    real, count = getattr(os, call), iter(range(1000))

    def stopping(*args: object, **words: object) -> object:
        if next(count) == stop_at:
            raise PowerLossError
        return real(*args, **words)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, stopping)
        patch.setattr("shutil.rmtree", lambda *args, **words: None)
        patch.setattr(Path, "unlink", lambda *args, **words: None)
        try:
            commit(path, "new")
        except PowerLossError:
            return False
    return True


def test_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    commit(tmp_path, "one")

    def failing(parts: Path) -> None:
        (parts / "half").write_text("...")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        FORMAT.commit(tmp_path, {"value": "two"}, failing)
    assert value_in(tmp_path) == "one"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", ['{"architectures": ["BertModel"]}', "not json", "[]"])
def test_files_of_something_else_are_not_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(ServableError, match=r"state\.json belongs to something else and is not overwritten"):
        commit(tmp_path, "one")
    assert (tmp_path / "state.json").read_text() == content
    assert not FORMAT.is_free(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServableError, match="is a file; give a folder"):
        commit(tmp_path / "file", "one")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"test-format"', '"other"', "is not of the format 'test-format', it says 'other'"),
        ('"format_version": 1', '"format_version": 2', r"has format version 2, written by simtrain .* reads version 1"),
        ('"parts": "parts-', '"parts": "../parts-', r"names no parts folder, it says '\.\./parts-"),
        ('"parts": "parts-', '"parts": "parts-000000000000", "x": "', r"parts-000000000000 is missing, which .* names"),
        ("{", "", "cannot be read as JSON"),
    ],
)
def test_damaged_states_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    commit(tmp_path, "one")
    file = tmp_path / "state.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ServableError, match=message):
        FORMAT.read(tmp_path)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ServableError, match=r"there is no folder .*nowhere"):
        FORMAT.read(tmp_path / "nowhere")
    with pytest.raises(ServableError, match=r"state\.json is missing"):
        FORMAT.read(tmp_path)


def test_links_out_of_the_folder_are_not_followed_when_cleaning_up(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep")
    path = tmp_path / "state"
    commit(path, "one")
    (path / "parts-0123456789ab").symlink_to(tmp_path / "precious")
    commit(path, "two")
    assert (tmp_path / "precious" / "file").read_text() == "keep"
