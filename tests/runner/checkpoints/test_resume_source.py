"""Damaged, missing and foreign checkpoints."""

import logging
import os
import resource

import pytest
import torch

from simtrain.errors import CheckpointError
from simtrain.runner.checkpoints.checkpoint_file import DurableCheckpointIO, damage, read_run, remove_drafts
from simtrain.runner.checkpoints.resume_source import checkpoint_files, resume_path

RUN = {"state_dict": {"weight": torch.arange(5000.0)}, "loops": {}}


def save(folder, name, age=0, content=RUN):
    file = folder / "checkpoints" / name
    DurableCheckpointIO().save_checkpoint(content, file)
    os.utime(file, ns=(0, 10**18 - age * 10**9))
    return file


def cut(file, size):
    stat = file.stat()
    file.write_bytes(file.read_bytes()[:size])
    os.utime(file, ns=(stat.st_mtime_ns, stat.st_mtime_ns))


def test_auto_takes_the_newest(tmp_path):
    save(tmp_path, "epoch=9-step=90.ckpt", age=5)
    newest = save(tmp_path, "epoch=1-step=10.ckpt")
    os.link(newest, newest.with_name("last.ckpt"))
    assert [file.name for file in checkpoint_files(tmp_path)] == ["epoch=1-step=10.ckpt", "epoch=9-step=90.ckpt"]
    assert resume_path("auto", tmp_path).samefile(newest)


def test_of_files_of_one_moment_the_later_step_is_the_newer(tmp_path):
    for name in ("epoch=0-step=9.ckpt", "epoch=0-step=10.ckpt", "epoch=0-step=8.ckpt"):
        save(tmp_path, name)
    assert [file.name for file in checkpoint_files(tmp_path)] == [f"epoch=0-step={step}.ckpt" for step in (10, 9, 8)]


def test_a_truncated_newest_one_falls_back_to_the_one_before_with_a_message(tmp_path, caplog):
    older, newest = save(tmp_path, "a.ckpt", age=5), save(tmp_path, "b.ckpt")
    for size in (0, 1, 100, newest.stat().st_size // 2, newest.stat().st_size - 1):
        whole = newest.read_bytes()
        cut(newest, size)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="simtrain"):
            assert resume_path("auto", tmp_path) == older
        assert "b.ckpt is damaged: it is cut off" in caplog.text
        assert "trying the checkpoint before it" in caplog.text
        newest.write_bytes(whole)
        os.utime(newest, ns=(0, 10**18))
    assert resume_path("auto", tmp_path) == newest


def test_a_flipped_byte_is_found(tmp_path):
    file = save(tmp_path, "a.ckpt")
    content = bytearray(file.read_bytes())
    place = content.find(torch.arange(5000.0).numpy().tobytes()[4000:4032])
    content[place] ^= 1
    file.write_bytes(content)
    assert "has another checksum" in damage(file)
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints in .* is whole"):
        resume_path("auto", tmp_path)


def test_a_path_takes_that_file_and_no_other(tmp_path):
    older, newest = save(tmp_path, "a.ckpt", age=5), save(tmp_path, "b.ckpt")
    assert resume_path(str(older), tmp_path / "elsewhere") == older
    assert resume_path(str(older.parent), tmp_path / "elsewhere") == newest
    cut(older, 50)
    with pytest.raises(CheckpointError, match=r"cannot resume: .*a\.ckpt is damaged"):
        resume_path(str(older), tmp_path)


def test_code_in_a_checkpoint_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    file = tmp_path / "evil.ckpt"
    torch.save({**RUN, "callbacks": Evil()}, file)
    with pytest.raises(CheckpointError, match="only tensors and plain containers are loaded"):
        read_run(file)
    assert not (tmp_path / "ran").exists()


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    file = save(tmp_path, "a.ckpt")
    before = file.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simtrain.runner.checkpoints.checkpoint_file.sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        DurableCheckpointIO().save_checkpoint({"other": 1}, file)
    assert file.read_bytes() == before
    assert [one.name for one in file.parent.iterdir()] == ["a.ckpt"]


def test_what_a_killed_write_has_left_is_removed(tmp_path):
    file = save(tmp_path, "a.ckpt")
    (file.parent / "b.ckpt.tmp-0123456789ab").write_bytes(b"half")
    assert checkpoint_files(tmp_path) == [file]
    remove_drafts(file.parent)
    assert [one.name for one in file.parent.iterdir()] == ["a.ckpt"]


def test_a_disk_that_takes_no_more_is_told_in_a_sentence(tmp_path):
    file = save(tmp_path, "a.ckpt")
    whole, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(
            OSError, match=r"cannot write the checkpoint .*a\.ckpt: the disk takes no more \([\d,]+ bytes"
        ):
            DurableCheckpointIO().save_checkpoint(RUN, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == whole
    assert [one.name for one in file.parent.iterdir()] == ["a.ckpt"]
