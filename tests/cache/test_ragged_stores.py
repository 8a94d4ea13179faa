from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simtrain.cache.ragged import Ragged, padded, places, ragged
from simtrain.cache.ragged_disk_store import RaggedDiskStore
from simtrain.cache.ragged_store import RaggedMemoryStore, RaggedStore
from simtrain.errors import CacheError


def items(n: int, dim: int = 4, seed: int = 0) -> tuple[np.ndarray, list[torch.Tensor]]:
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 256, (n, 16), dtype=np.uint8)
    return keys, [torch.from_numpy(rng.normal(size=(int(rng.integers(1, 9)), dim))).float() for _ in range(n)]


def flat(parts: list[torch.Tensor]) -> Ragged:
    return Ragged(torch.cat(parts), torch.tensor([len(part) for part in parts]))


def opened(kind: str, folder: Path, dtype: str = "float32", **options: Any) -> RaggedStore:
    return RaggedMemoryStore(4, dtype) if kind == "cpu" else RaggedDiskStore(folder, 4, dtype, **options)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["cpu", "disk"])
def test_gathering_gives_what_was_appended(tmp_path: Path, kind: str, dtype: str) -> None:
    store = opened(kind, tmp_path, dtype, **({"segment_rows": 7} if kind == "disk" else {}))
    assert isinstance(store, RaggedStore)
    keys, parts = items(40)
    with store.writing():
        store.reserve(10)
        for start in range(0, 40, 9):
            store.append(keys[start : start + 9], flat(parts[start : start + 9]))
    assert len(store) == 40
    rows = store.lookup(keys)
    for wanted in (torch.tensor([3]), torch.tensor([39, 0, 7, 7, 13]), torch.randperm(40)):
        got, mask = store.gather(rows[wanted])
        assert got.shape == (len(wanted), max(len(parts[i]) for i in wanted.tolist()), 4)
        for place, number in enumerate(wanted.tolist()):
            length = len(parts[number])
            assert mask[place].tolist() == [1] * length + [0] * (got.shape[1] - length)
            assert torch.equal(got[place, :length], parts[number].to(got.dtype))
            assert not got[place, length:].any()
    assert str(got.dtype) == f"torch.{dtype}"
    empty = store.gather(torch.empty(0, dtype=torch.long))
    assert empty.values.shape[0] == 0
    with pytest.raises(CacheError, match="row numbers must be from 0 to 39, got 40 to 40"):
        store.gather(torch.tensor([40]))


def test_ragged_and_padded_are_inverse() -> None:
    _, parts = items(6)
    whole = flat(parts)
    values, mask = padded(*whole)
    back = ragged(values, mask)
    assert torch.equal(back.values, whole.values)
    assert torch.equal(back.lengths, whole.lengths)
    flipped = ragged(values.flip(1), mask.flip(1))
    assert torch.equal(flipped.lengths, whole.lengths)
    assert places(torch.tensor([5, 0]), torch.tensor([1, 2])).tolist() == [5, 0, 1]


def test_a_reopened_store_has_its_items_and_takes_more(tmp_path: Path) -> None:
    keys, parts = items(20)
    RaggedDiskStore(tmp_path, 4, "float32").append(keys[:8], flat(parts[:8]))
    store = RaggedDiskStore(tmp_path, 4, "float32")
    store.gather(torch.arange(8))
    store.append(keys[8:], flat(parts[8:]))  # goes on in the same segment
    for again in (store, RaggedDiskStore(tmp_path, 4, "float32")):
        got = ragged(*again.gather(again.lookup(keys)))
        assert torch.equal(got.values, torch.cat(parts))


@pytest.mark.parametrize("ending", [".npy", ".lengths.npy", ".keys.npy"])
def test_a_flipped_byte_is_found_and_only_that_segment_lost(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys, parts = items(20)
    RaggedDiskStore(tmp_path, 4, "float32", segment_rows=10).append(keys, flat(parts))
    file = tmp_path / f"segment-000001{ending}"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    store = RaggedDiskStore(tmp_path, 4, "float32", segment_rows=10)
    with caplog.at_level(logging.WARNING, "simtrain"):
        rows = store.lookup(keys)
    assert (rows[:10] >= 0).all()
    assert (rows[10:] < 0).all()
    assert f"segment-000001{ending} does not match its checksum" in caplog.text
    store.append(keys[10:], flat(parts[10:]))
    assert torch.equal(ragged(*store.gather(store.lookup(keys))).values, torch.cat(parts))


def test_memory_is_reserved_once_when_the_longest_come_first() -> None:
    keys, parts = items(60)
    parts.sort(key=len, reverse=True)
    store = RaggedMemoryStore(4, "float32")
    store.reserve(60)
    store.append(keys[:10], flat(parts[:10]))
    place = store._vectors.data_ptr()
    for start in range(10, 60, 10):
        store.append(keys[start : start + 10], flat(parts[start : start + 10]))
    assert store._vectors.data_ptr() == place
    assert torch.equal(ragged(*store.gather(store.lookup(keys))).values, torch.cat(parts))


def test_states_that_outgrow_their_device_move_with_all_that_there_is(caplog: pytest.LogCaptureFixture) -> None:
    keys, parts = items(20)
    room = [10**6]
    # Asked of the device that is given up; of the CPU, where nobody can tell, afterwards.
    store = RaggedMemoryStore(4, "float32", free=lambda device: None if caplog.text else room[0])
    store.append(keys[:10], flat(parts[:10]))
    assert caplog.text == ""
    room[0] = 0
    store.append(keys[10:], flat(parts[10:]))
    assert caplog.text.count("the token states are kept on the CPU") == 1
    assert torch.equal(ragged(*store.gather(store.lookup(keys))).values, torch.cat(parts))
