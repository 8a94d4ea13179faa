import json
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
    assert (manifest["dim"], manifest["dtype"], manifest["format"]) == (3, dtype, 1)


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
