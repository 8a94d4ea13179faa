import pytest
import torch

from simtrain.cache import CacheConfig, CacheType, DiskStore, MemoryStore, open_cache
from simtrain.errors import CacheError, ConfigError


def test_types_make_their_stores(make_encoder, tmp_path):
    config = CacheConfig(save_dir=tmp_path, dtype="float16")
    memory = open_cache("text", make_encoder(), config, CacheType.CPU).store
    disk = open_cache("text", make_encoder(), config, "disk").store
    assert isinstance(memory, MemoryStore)
    assert isinstance(disk, DiskStore)
    assert (memory.dim, memory.dtype) == (disk.dim, disk.dtype) == (4, "float16")


@pytest.mark.parametrize("kind", ["auto", "none"])
def test_types_must_be_resolved(make_encoder, kind):
    with pytest.raises(ConfigError, match=f"open_cache takes CPU, GPU or DISK, got {kind.upper()}"):
        open_cache("text", make_encoder(), CacheConfig(), kind)


def test_disk_needs_a_folder(make_encoder):
    with pytest.raises(ConfigError, match="a DISK cache needs a folder"):
        open_cache("text", make_encoder(), CacheConfig(), "disk")


def folder_of(encoder, **words):
    return open_cache("text", encoder, CacheConfig("disk", **words), "disk").store.folder


def by_upper(text):
    return text.upper()


def by_lower(text):
    return text.lower()


def test_folders_differ_by_all_that_embeddings_depend_on(make_encoder, tmp_path):
    changed = make_encoder()
    with torch.no_grad():
        changed.weight[0, 0] = 0
    folders = [
        folder_of(make_encoder(), save_dir=tmp_path),
        folder_of(changed, save_dir=tmp_path),
        folder_of(make_encoder(scale=2.0), save_dir=tmp_path),
        folder_of(make_encoder(), save_dir=tmp_path, dtype="bfloat16"),
        folder_of(make_encoder(), save_dir=tmp_path, key_extractors=by_upper),
        folder_of(make_encoder(), save_dir=tmp_path, key_extractors={"text": by_lower}),
    ]
    assert len(set(folders)) == 6
    assert all(folder.parent == tmp_path and folder.name.startswith("text-") for folder in folders)
    assert folder_of(make_encoder(), save_dir=tmp_path, batch_size=3, num_workers=1) == folders[0]


def test_names_cannot_leave_the_folder(make_encoder, tmp_path):
    config = CacheConfig("disk", save_dir=tmp_path)
    folder = open_cache("../a b", make_encoder(), config, "disk").store.folder
    assert folder.parent == tmp_path
    assert folder.name.startswith(".._a_b-")


def test_a_key_extractor_goes_to_its_encoder_only(make_encoder):
    config = CacheConfig("cpu", key_extractors={"text": by_lower})
    assert open_cache("text", make_encoder(), config, "cpu").key_extractor is by_lower
    assert open_cache("other", make_encoder(), config, "cpu").key_extractor is None


def test_a_folder_that_cannot_be_made_is_a_clear_error(make_encoder, tmp_path):
    (tmp_path / "file").write_text("")
    config = CacheConfig("disk", save_dir=tmp_path / "file")
    with pytest.raises(CacheError, match=r"cannot write the cache folder .*: Not a directory; make room or choose"):
        open_cache("text", make_encoder(), config, "disk")
