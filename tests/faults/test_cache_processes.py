"""Processes that are killed while filling a cache, and processes that fill one cache at once."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from simtrain.cache import DiskStore, EmbeddingCache
from simtrain.encoders import Encoder

FORK = multiprocessing.get_context("fork")
NUMBERS = list(range(200))
SEGMENT = 20


class SlowEncoder(Encoder):
    trainable = False
    embedding_size = 2

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self.pause = pause
        self.encoded: list[int] = []

    def get_collate_fn(self):
        return torch.tensor

    def forward(self, batch):
        time.sleep(self.pause)
        self.encoded += batch.tolist()
        return torch.stack([batch.float(), -batch.float()], dim=1)


def fill(folder: Path, pause: float = 0.0, answers=None) -> list[int]:
    encoder = SlowEncoder(pause)
    cache = EmbeddingCache(encoder, DiskStore(folder, 2, segment_rows=SEGMENT))
    cache.fill(NUMBERS, batch_size=8, progress=False)
    expected = torch.tensor([[number, -number] for number in NUMBERS], dtype=torch.float32)
    assert torch.equal(cache.gather(cache.rows(NUMBERS)), expected)
    if answers is not None:
        answers.put(encoder.encoded)
    return encoder.encoded


def stored_rows(folder: Path) -> int:
    path = folder / "manifest.json"
    return sum(segment["rows"] for segment in json.loads(path.read_text())["segments"]) if path.exists() else 0


@pytest.mark.parametrize("least", [0, SEGMENT, 5 * SEGMENT])
def test_a_killed_filling_loses_the_segment_at_hand_at_most(tmp_path, least):
    process = FORK.Process(target=fill, args=(tmp_path, 0.02))
    process.start()
    deadline = time.monotonic() + 30
    while stored_rows(tmp_path) < least and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    stored = stored_rows(tmp_path)
    assert least <= stored < len(NUMBERS)
    assert fill(tmp_path) == NUMBERS[stored:]
    assert fill(tmp_path) == []


def fill_by_time(folder: Path, pause: float) -> list[int]:
    encoder = SlowEncoder(pause)
    cache = EmbeddingCache(encoder, DiskStore(folder, 2, segment_rows=10_000, segment_seconds=0.05))
    cache.fill(NUMBERS, batch_size=8, progress=False)
    expected = torch.tensor([[number, -number] for number in NUMBERS], dtype=torch.float32)
    assert torch.equal(cache.gather(cache.rows(NUMBERS)), expected)
    return encoder.encoded


def test_a_killed_filling_of_a_long_segment_keeps_what_was_made_safe_by_time(tmp_path):
    process = FORK.Process(target=fill_by_time, args=(tmp_path, 0.02))
    process.start()
    deadline = time.monotonic() + 30
    while stored_rows(tmp_path) < 40 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    stored = stored_rows(tmp_path)
    assert 40 <= stored < len(NUMBERS)
    with (tmp_path / "segment-000000.npy").open("ab") as file:
        file.write(b"half a row that was on its way")
    assert fill_by_time(tmp_path, 0.0) == NUMBERS[stored:]
    assert sorted(path.name for path in tmp_path.glob("segment-*")) == ["segment-000000.keys.npy", "segment-000000.npy"]
    fill_by_time(tmp_path / "at_once", 0.0)
    for path in (tmp_path / "at_once").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_filling_survives_being_killed_at_any_moment(tmp_path):
    kills = 0
    for attempt in range(12):
        process = FORK.Process(target=fill, args=(tmp_path, 0.001))
        process.start()
        time.sleep(0.03 + 0.007 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        DiskStore(tmp_path, 2)
    assert kills > 0
    fill(tmp_path)
    assert fill(tmp_path) == []
    assert stored_rows(tmp_path) == len(NUMBERS)


def test_two_processes_end_with_the_same_bytes_and_encode_each_item_once(tmp_path):
    answers = FORK.SimpleQueue()
    processes = [FORK.Process(target=fill, args=(tmp_path / "two", 0.01, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    encoded = [answers.get() for _ in processes]
    assert sorted(map(len, encoded)) == [0, len(NUMBERS)]
    fill(tmp_path / "one")
    contents = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2 + 2 * len(NUMBERS) // SEGMENT
