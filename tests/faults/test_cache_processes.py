"""Processes that are killed while filling a cache, and processes that fill one cache at once."""

import json
import math
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

import simtrain.cache
from simtrain.cache import DiskStore, EmbeddingCache
from simtrain.encoders import Encoder

CODE = str(Path(simtrain.cache.__file__).parent)
FORK = multiprocessing.get_context("fork")
NUMBERS = list(range(200))
SEGMENT = 20


class HaltingEncoder(Encoder):
    """Takes its time for each batch, and halts for good where it has encoded so many items."""

    trainable = False
    embedding_size = 2

    def __init__(self, pause: float = 0.0, halts_at: float = math.inf) -> None:
        super().__init__()
        self.pause, self.halts_at = pause, halts_at
        self.encoded: list[int] = []

    def get_collate_fn(self):
        return torch.tensor

    def forward(self, batch):
        time.sleep(self.pause if len(self.encoded) < self.halts_at else 3600)
        self.encoded += batch.tolist()
        return torch.stack([batch.float(), -batch.float()], dim=1)


def fill(folder: Path, pause: float = 0.0, halts_at: float = math.inf, answers=None, **sizes) -> list[int]:
    encoder = HaltingEncoder(pause, halts_at)
    cache = EmbeddingCache(encoder, DiskStore(folder, 2, **{"segment_rows": SEGMENT, **sizes}))
    cache.fill(NUMBERS, batch_size=8, progress=False)
    expected = torch.tensor([[number, -number] for number in NUMBERS], dtype=torch.float32)
    assert torch.equal(cache.gather(cache.rows(NUMBERS)), expected)
    if answers is not None:
        answers.put(encoder.encoded)
    return encoder.encoded


def stored_rows(folder: Path) -> int:
    path = folder / "manifest.json"
    return sum(segment["rows"] for segment in json.loads(path.read_text())["segments"]) if path.exists() else 0


def kill_at(least: int, folder: Path, *words, **sizes) -> int:
    """Kill a filling that has made so many rows safe; how many there are."""
    process = FORK.Process(target=fill, args=(folder, *words), kwargs=sizes)
    process.start()
    while stored_rows(folder) < least and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    stored = stored_rows(folder)
    assert least <= stored < len(NUMBERS)
    return stored


@pytest.mark.parametrize("least", [0, SEGMENT, 5 * SEGMENT])
def test_a_killed_filling_loses_the_segment_at_hand_at_most(tmp_path, least):
    stored = kill_at(least, tmp_path, 0.0, least + SEGMENT // 2)
    assert stored <= least + SEGMENT // 2
    assert fill(tmp_path) == NUMBERS[stored:]
    assert fill(tmp_path) == []


def fill_by_time(folder: Path) -> list[int]:
    return fill(folder, segment_rows=10_000, segment_seconds=0.05)


def test_a_killed_filling_of_a_long_segment_keeps_what_was_made_safe_by_time(tmp_path):
    # Every two batches or so are made safe.
    stored = kill_at(40, tmp_path, 0.03, 160, segment_rows=10_000, segment_seconds=0.05)
    with (tmp_path / "segment-000000.npy").open("ab") as file:
        file.write(b"half a row that was on its way")
    assert fill_by_time(tmp_path) == NUMBERS[stored:]
    assert sorted(path.name for path in tmp_path.glob("segment-*")) == ["segment-000000.keys.npy", "segment-000000.npy"]
    fill_by_time(tmp_path / "at_once")
    for path in (tmp_path / "at_once").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def fill_and_die(folder: Path, lines: int) -> None:
    """Fill, and kill this process after so many lines of code of the cache."""

    def count(frame, event, arg):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(CODE):
            return None
        lines -= event == "line"
        if lines <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    sys.settrace(count)
    fill(folder)


def test_filling_survives_being_killed_at_any_moment(tmp_path):
    kills = 0
    for attempt in range(12):  # from opening the folder to the last segments
        process = FORK.Process(target=fill_and_die, args=(tmp_path, int(300 * 1.35**attempt)))
        process.start()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        DiskStore(tmp_path, 2)
    assert kills > 6
    fill(tmp_path)
    assert fill(tmp_path) == []
    assert stored_rows(tmp_path) == len(NUMBERS)


def test_two_processes_end_with_the_same_bytes_and_encode_each_item_once(tmp_path):
    answers = FORK.SimpleQueue()
    processes = [FORK.Process(target=fill, args=(tmp_path / "two", 0.01, math.inf, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    encoded = [answers.get() for _ in processes]
    assert sorted(map(len, encoded)) == [0, len(NUMBERS)]
    fill(tmp_path / "one")
    contents = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2 + 2 * len(NUMBERS) // SEGMENT
