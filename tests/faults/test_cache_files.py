"""Damaged, truncated and missing files; full disks."""

import logging
import multiprocessing
import pickletools
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from simtrain.cache import DiskStore, EmbeddingCache
from simtrain.cache.column_files import HEADER_BYTES
from simtrain.encoders import Encoder
from simtrain.errors import CacheError

NUMBERS = list(range(40))


class NumberEncoder(Encoder):
    trainable = False
    embedding_size = 2

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[float] = []

    def get_collate_fn(self):
        return torch.tensor

    def forward(self, batch):
        self.encoded += batch.tolist()
        return torch.stack([batch.float(), -batch.float()], dim=1)


def open_store(folder: Path) -> DiskStore:
    return DiskStore(folder, 2, segment_rows=10)


def fill(folder: Path, numbers=NUMBERS) -> list[float]:
    encoder = NumberEncoder()
    cache = EmbeddingCache(encoder, open_store(folder))
    cache.fill(numbers, batch_size=4)
    check(cache, numbers)
    return encoder.encoded


def check(cache: EmbeddingCache, numbers) -> None:
    expected = torch.tensor([[number, -number] for number in numbers], dtype=torch.float32)
    assert torch.equal(cache.gather(cache.rows(numbers)), expected)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0, 8, 70, HEADER_BYTES, HEADER_BYTES + 13, -1])
@pytest.mark.parametrize("ending", [".npy", ".keys.npy"])
def test_a_flipped_bit_is_found_and_only_its_segment_encoded_again(tmp_path, caplog, place, ending):
    assert fill(tmp_path) == NUMBERS
    flip(tmp_path / f"segment-000001{ending}", place)
    with caplog.at_level(logging.WARNING, logger="simtrain"):
        assert fill(tmp_path) == NUMBERS[10:20]
    assert f"segment-000001{ending}" in caplog.text
    assert "10 embeddings are computed again" in caplog.text
    assert fill(tmp_path) == []


@pytest.mark.parametrize("size", [0, 5, HEADER_BYTES, HEADER_BYTES + 1, HEADER_BYTES + 79])
@pytest.mark.parametrize("ending", [".npy", ".keys.npy"])
def test_a_truncated_file_is_found(tmp_path, size, ending):
    fill(tmp_path)
    path = tmp_path / f"segment-000003{ending}"
    path.write_bytes(path.read_bytes()[:size])
    assert fill(tmp_path) == NUMBERS[30:]
    assert fill(tmp_path) == []


def test_a_missing_file_is_found(tmp_path):
    fill(tmp_path)
    (tmp_path / "segment-000000.npy").unlink()
    assert fill(tmp_path) == NUMBERS[:10]
    assert fill(tmp_path) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_manifest_is_found(tmp_path, caplog, damage):
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    text = path.read_text()
    contents = {"flip": text.replace('"rows": 10', '"rows": 11', 1), "cut": text[:100], "empty": "", "other": "[1]"}
    path.write_text(contents[damage])
    assert fill(tmp_path) == NUMBERS
    assert caplog.text.count("manifest.json is damaged; all embeddings that it named are computed again") == 1
    assert fill(tmp_path) == []


def test_a_segment_that_cannot_be_read_is_not_thrown_away(tmp_path):
    fill(tmp_path)
    path = tmp_path / "segment-000000.npy"
    path.rename(tmp_path / "kept")
    path.mkdir()
    with pytest.raises(CacheError, match=r"cannot read segment-000000 of the cache in .*: Is a directory"):
        open_store(tmp_path)
    path.rmdir()
    (tmp_path / "kept").rename(path)
    assert fill(tmp_path) == []


def test_a_damaged_segment_can_be_read_around_without_writing(tmp_path):
    fill(tmp_path)
    flip(tmp_path / "segment-000001.npy", -1)
    cache = EmbeddingCache(NumberEncoder(), open_store(tmp_path))
    check(cache, NUMBERS[:10] + NUMBERS[20:])
    with pytest.raises(CacheError, match="has no embedding of 10"):
        cache.rows(NUMBERS)


def test_what_killed_processes_left_is_removed(tmp_path):
    fill(tmp_path)
    for name in ("segment-000004.npy", "segment-000009.keys.npy"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "manifest.json.new").write_bytes(b"{")
    (tmp_path / "notes.txt").write_text("mine")
    assert fill(tmp_path, [*NUMBERS, 100]) == [100]
    segments = {f"segment-{n:06d}{ending}" for n in [*range(4), 4] for ending in (".npy", ".keys.npy")}
    names = {path.name for path in tmp_path.iterdir()}
    assert names - segments == {".lock", "manifest.json", "notes.txt"}
    assert segments <= names


def test_no_file_is_a_pickle(tmp_path):
    fill(tmp_path)
    checked = 0
    for path in tmp_path.glob("*.npy"):
        assert not np.load(path, allow_pickle=False).dtype.hasobject
        with pytest.raises((ValueError, AssertionError)):
            list(pickletools.genops(path.read_bytes()))
        checked += 1
    assert checked == 8


def limited_fill(folder: Path, limit: int, answers) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    cache = EmbeddingCache(NumberEncoder(), DiskStore(folder, 2, segment_rows=1000))
    try:
        cache.fill(list(range(2000)), batch_size=50)
        answers.put("no error")
    except CacheError as error:
        check(cache, NUMBERS)
        cache.fill(NUMBERS)
        answers.put(str(error))


@pytest.mark.parametrize("limit", [1000, 8192])
def test_a_disk_that_takes_no_more_is_an_error_and_leaves_the_cache_usable(tmp_path, limit):
    fill(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=limited_fill, args=(tmp_path, limit, answers))
    process.start()
    process.join(240)
    assert process.exitcode == 0
    message = answers.get()
    assert f"cannot write the cache folder {tmp_path}: File too large; make room or choose another save_dir" in message
    assert "40 embeddings stored before stay usable" in message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert fill(tmp_path, list(range(50))) == list(range(40, 50))


def limited_growth(folder: Path, answers) -> None:
    cache = EmbeddingCache(NumberEncoder(), DiskStore(folder, 2, segment_rows=10_000, segment_seconds=0.0))
    cache.fill(NUMBERS, batch_size=4)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
    try:
        cache.fill(list(range(5000)), batch_size=50)
    except CacheError as error:
        stored = len(cache.store)
        check(cache, list(range(stored - 40, stored)))
        answers.put((str(error), stored))


def test_a_disk_that_fills_up_keeps_all_that_was_safe_of_the_segment_at_hand(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=limited_growth, args=(tmp_path, answers))
    process.start()
    process.join(240)
    assert process.exitcode == 0
    message, stored = answers.get()
    assert "File too large" in message
    assert f"{stored} embeddings stored before stay usable" in message
    assert stored >= 40
    assert (tmp_path / "segment-000000.npy").stat().st_size == HEADER_BYTES + stored * 8
    assert np.load(tmp_path / "segment-000000.npy").shape == (stored, 2)
    assert sorted(fill(tmp_path, list(range(300)))) == list(range(stored, 300))


def test_a_folder_whose_lock_cannot_be_made_can_be_read(tmp_path):
    fill(tmp_path)
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").mkdir()
    assert fill(tmp_path) == []
    with pytest.raises(CacheError, match="cannot write the cache folder"):
        fill(tmp_path, [1000])
