import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.cache import DiskStore, MemoryStore, Store, item_keys
from simtrain.errors import CacheError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def rows_of(count: int, dim: int = 3) -> tuple[np.ndarray, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return item_keys(range(count)), torch.randn(count, dim, generator=generator)


@pytest.fixture(params=["memory", "disk"])
def make_store(request, tmp_path):
    def make(dtype: str = "float32", segment_rows: int = 4):
        if request.param == "memory":
            return MemoryStore(3, dtype)
        return DiskStore(tmp_path / dtype, 3, dtype, segment_rows=segment_rows)

    return make


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_was_appended_comes_back_in_any_order(make_store, dtype):
    keys, vectors = rows_of(11)
    store = make_store(dtype)
    with store.writing():
        store.append(keys[:5], vectors[:5])
        store.append(keys[5:], vectors[5:])
    assert len(store) == 11
    order = torch.tensor([10, 0, 3, 3, 7])
    rows = store.lookup(keys[order.numpy()])
    got = store.gather(rows)
    assert got.dtype == torch.float32
    assert torch.equal(got, vectors[order].to(DTYPES[dtype]).float())


def test_missing_keys_have_row_minus_one(make_store):
    keys, vectors = rows_of(4)
    store = make_store()
    assert store.lookup(keys).tolist() == [-1] * 4
    store.append(keys[:2], vectors[:2])
    assert store.lookup(keys[[3, 1]]).tolist() == [-1, 1]


def test_an_empty_request_gives_an_empty_answer(make_store):
    store = make_store()
    assert store.gather(torch.empty(0, dtype=torch.int64)).shape == (0, 3)
    assert store.lookup(np.empty((0, 16), dtype=np.uint8)).shape == (0,)


def test_rows_stay_valid_while_the_store_grows(make_store):
    keys, vectors = rows_of(9)
    store = make_store()
    store.append(keys[:2], vectors[:2])
    rows = store.lookup(keys[:2])
    store.append(keys[2:], vectors[2:])
    assert torch.equal(store.gather(rows), vectors[:2])


def test_both_stores_keep_the_protocol(make_store):
    assert isinstance(make_store(), Store)


@pytest.mark.parametrize("row", [-1, 4])
def test_wrong_rows_are_refused_on_disk(tmp_path, row):
    keys, vectors = rows_of(4)
    store = DiskStore(tmp_path, 3)
    store.append(keys, vectors)
    with pytest.raises(CacheError, match="row numbers must be from 0 to 3, got"):
        store.gather(torch.tensor([row]))


def test_reserved_memory_is_not_copied_while_filling():
    keys, vectors = rows_of(6)
    store = MemoryStore(3)
    store.reserve(6)
    place = store._vectors.data_ptr()
    store.append(keys[:3], vectors[:3])
    store.append(keys[3:], vectors[3:])
    assert store._vectors.data_ptr() == place
    assert store.vectors.shape == (6, 3)


def on_two_bytes_a_row(free):
    # torch's "meta" device stands for a GPU: tensors there take no memory, and copies from it are refused.
    return MemoryStore(1, "float16", "meta", free=lambda device: free if device.type == "meta" else None)


def test_a_store_that_would_not_fit_on_its_device_is_kept_on_the_cpu(caplog):
    keys, vectors = rows_of(100, dim=1)
    store = on_two_bytes_a_row(free=200)
    with caplog.at_level("WARNING", logger="simtrain"):
        store.reserve(90)
        assert store.vectors.device.type == "meta"
        assert caplog.text == ""
        store = on_two_bytes_a_row(free=200)
        store.reserve(91)
    assert "GiB do not fit on meta; the embeddings are kept on the CPU" in caplog.text
    store.append(keys, vectors)
    assert torch.equal(store.gather(torch.arange(100)), vectors.half().float())


def test_a_store_that_outgrows_its_device_moves_with_all_that_it_has(caplog):
    keys, vectors = rows_of(30, dim=2)
    free = iter([200, 100])
    store = MemoryStore(2, "float32", free=lambda device: next(free, None))
    store.append(keys[:10], vectors[:10])
    assert caplog.text == ""
    store.append(keys[10:], vectors[10:])
    assert "the embeddings are kept on the CPU" in caplog.text
    assert torch.equal(store.gather(store.lookup(keys)), vectors)


def test_memory_that_is_not_there_is_a_cache_error():
    with pytest.raises(CacheError, match=r"GiB of memory, which is not there; use CacheType.DISK or dtype='float16'"):
        MemoryStore(1024).reserve(2**42)


@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), max_size=5), segment_rows=st.integers(1, 6), reopen=st.booleans())
def test_disk_store_equals_memory_store(tmp_path_factory, sizes, segment_rows, reopen):
    keys, vectors = rows_of(sum(sizes))
    memory = MemoryStore(3)
    folder = tmp_path_factory.mktemp("store")
    disk = DiskStore(folder, 3, segment_rows=segment_rows)
    start = 0
    with disk.writing():
        for size in sizes:
            part = slice(start, start + size)
            memory.append(keys[part], vectors[part])
            disk.append(keys[part], vectors[part])
            start += size
    disk = DiskStore(folder, 3) if reopen else disk
    rows = disk.lookup(keys)
    assert torch.equal(rows, memory.lookup(keys))
    assert torch.equal(disk.gather(rows), memory.gather(rows))


@pytest.mark.parametrize("dtype", DTYPES)
def test_files_are_plain_npy_and_json(tmp_path, dtype):
    keys, vectors = rows_of(5)
    store = DiskStore(tmp_path, 3, dtype, segment_rows=3)
    with store.writing():
        store.append(keys, vectors)
    names = sorted(path.name for path in tmp_path.iterdir())
    parts = [f"segment-00000{n}{ending}" for n in range(2) for ending in (".keys.npy", ".npy")]
    assert names == sorted([".lock", "manifest.json", *parts])
    loaded = [np.load(tmp_path / f"segment-00000{n}.npy", allow_pickle=False) for n in range(2)]
    assert np.concatenate(loaded).shape == (5, 3)
    assert np.array_equal(np.load(tmp_path / "segment-000000.keys.npy", allow_pickle=False), keys[:3])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [segment["rows"] for segment in manifest["segments"]] == [3, 2]
    assert (manifest["dim"], manifest["dtype"], manifest["format"]) == (3, dtype, 2)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"dim": 4}, "was written for dim 3, expected 4"),
        ({"dtype": "float16"}, "was written for dtype 'float32', expected 'float16'"),
        ({"fingerprint": "other"}, "was written for fingerprint '', expected 'other'"),
    ],
)
def test_a_folder_of_other_embeddings_is_refused(tmp_path: Path, settings_, message):
    DiskStore(tmp_path, 3).append(*rows_of(2))
    with pytest.raises(CacheError, match=message):
        DiskStore(tmp_path, **{"dim": 3, **settings_})


def test_an_error_while_writing_keeps_what_was_appended(tmp_path):
    keys, vectors = rows_of(5)
    store = DiskStore(tmp_path, 3)

    def interrupted():
        with store.writing():
            store.append(keys, vectors)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(DiskStore(tmp_path, 3).gather(torch.arange(5)), vectors)


def test_a_second_store_sees_the_first_one_s_rows_when_it_writes(tmp_path):
    keys, vectors = rows_of(6)
    first, second = DiskStore(tmp_path, 3), DiskStore(tmp_path, 3)
    first.append(keys[:4], vectors[:4])
    with second.writing():
        assert second.lookup(keys[:4]).tolist() == [0, 1, 2, 3]
        second.append(keys[4:], vectors[4:])
    assert torch.equal(second.gather(second.lookup(keys)), vectors)
    assert torch.equal(DiskStore(tmp_path, 3).gather(torch.arange(6)), vectors)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_store_on_a_gpu():
    keys, vectors = rows_of(5)
    store = MemoryStore(3, "float16", "cuda")
    store.append(keys, vectors.cuda())
    rows = store.lookup(keys)
    assert store.gather(rows).device.type == "cuda"
    assert torch.equal(store.gather(rows.cuda(), "cpu"), vectors.half().float())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cache_too_large_for_the_gpu_goes_to_the_cpu(caplog):
    store = MemoryStore(1024, device="cuda")
    free = torch.cuda.mem_get_info()[1]
    store.reserve(free // 4096 + 1)
    assert store.vectors.device.type == "cpu"
    assert "do not fit on cuda; the embeddings are kept on the CPU" in caplog.text


def test_rows_are_made_safe_by_time_and_the_last_segment_is_gone_on_with(tmp_path):
    keys, vectors = rows_of(9)
    store = DiskStore(tmp_path, 3, segment_rows=100, segment_seconds=0.0)
    with store.writing():
        for start in (0, 3):
            store.append(keys[start : start + 3], vectors[start : start + 3])
            assert torch.equal(DiskStore(tmp_path, 3).gather(torch.arange(start + 3)), vectors[: start + 3])
            assert torch.equal(store.gather(store.lookup(keys[: start + 3])), vectors[: start + 3])
    DiskStore(tmp_path, 3, segment_rows=100).append(keys[6:], vectors[6:])
    DiskStore(tmp_path / "at_once", 3, segment_rows=100).append(keys, vectors)
    for path in (tmp_path / "at_once").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    assert torch.equal(store.gather(store.lookup(keys[:6])), vectors[:6])


def test_small_fillings_leave_few_files_and_many_segments_open_quickly(tmp_path):
    keys, vectors = rows_of(150, dim=1)
    store = DiskStore(tmp_path / "small", 1, segment_rows=400)
    for start in range(0, 60, 2):
        store.append(keys[start : start + 2], vectors[start : start + 2])
    assert len(list((tmp_path / "small").glob("segment-*"))) == 2
    store = DiskStore(tmp_path / "many", 1, segment_rows=1)
    with store.writing():
        store.append(keys, vectors)
    start = time.process_time()
    opened = DiskStore(tmp_path / "many", 1)
    assert time.process_time() - start < 1.0
    assert torch.equal(opened.gather(opened.lookup(keys)), vectors)


def test_rows_that_another_process_adds_to_a_segment_are_seen(tmp_path):
    keys, vectors = rows_of(9)
    first, second = DiskStore(tmp_path, 3), DiskStore(tmp_path, 3)
    first.append(keys[:2], vectors[:2])
    second.append(keys[2:4], vectors[2:4])
    rows = second.lookup(keys[:4])
    first.append(keys[4:6], vectors[4:6])
    second.append(keys[6:], vectors[6:])
    assert torch.equal(second.gather(rows), vectors[:4])
    for store in (second, DiskStore(tmp_path, 3)):
        assert torch.equal(store.gather(store.lookup(keys)), vectors)
    assert len(list(tmp_path.glob("segment-*"))) == 2


@settings(max_examples=12, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.booleans()), max_size=8))
def test_several_stores_on_one_folder_never_give_another_item_s_embedding(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("store")
    keys, vectors = rows_of(60)
    stores = [DiskStore(folder, 3, segment_rows=7, segment_seconds=0.0) for _ in range(3)]
    done = 0
    for which, count, reopens in steps:
        stores[which].append(keys[done : done + count], vectors[done : done + count])
        done += count
        if reopens:
            stores[(which + 1) % 3] = DiskStore(folder, 3, segment_rows=7)
        for store in stores:
            rows = store.lookup(keys[:done])
            found = rows >= 0
            assert torch.equal(store.gather(rows[found]), vectors[:done][found])
        assert bool((stores[which].lookup(keys[:done]) >= 0).all())


def test_damage_is_found_when_a_row_is_used_and_spoils_no_other(tmp_path, caplog):
    keys, vectors = rows_of(9)
    store = DiskStore(tmp_path, 3, segment_rows=3)
    with store.writing():
        store.append(keys, vectors)
    path = tmp_path / "segment-000001.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    opened = DiskStore(tmp_path, 3, segment_rows=3)
    assert caplog.text == ""
    with pytest.raises(CacheError, match="have been damaged since it was filled; fill it again"):
        opened.gather(torch.tensor([0, 4, 8]))
    assert caplog.text.count("segment-000001.npy does not match its checksum; 3 embeddings are computed again") == 1
    assert opened.lookup(keys).tolist() == [0, 1, 2, -1, -1, -1, 6, 7, 8]
    opened.append(keys[3:6], vectors[3:6])
    assert torch.equal(opened.gather(opened.lookup(keys)), vectors)
    again = DiskStore(tmp_path, 3)
    assert torch.equal(again.gather(again.lookup(keys)), vectors)
    assert len(caplog.records) == 1
