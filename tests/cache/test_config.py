from pathlib import Path

import pytest

from simtrain.cache import CacheConfig, CacheType, resolve
from simtrain.errors import ConfigError


def test_default_is_auto():
    assert CacheConfig().cache_type is CacheType.AUTO


@pytest.mark.parametrize("name", ["cpu", "CPU", "Cpu", CacheType.CPU])
def test_names_are_taken_in_any_case(name):
    assert CacheConfig(name).cache_type is CacheType.CPU
    assert CacheConfig(mapping={"text": name}).mapping == {"text": CacheType.CPU}


def test_mapping_alone_caches_only_what_it_names():
    config = CacheConfig(mapping={"text": "cpu"})
    assert config.asked_for("text") is CacheType.CPU
    assert config.asked_for("image") is CacheType.NONE


def test_mapping_overrides_the_type_for_all():
    config = CacheConfig(CacheType.CPU, mapping={"text": CacheType.NONE})
    assert config.asked_for("text") is CacheType.NONE
    assert config.asked_for("image") is CacheType.CPU


def test_save_dir_becomes_a_path():
    assert CacheConfig("disk", save_dir="~/cache").save_dir == Path("~/cache").expanduser()


def test_dtype_may_carry_the_name_of_torch():
    assert CacheConfig(dtype="torch.float16").dtype == "float16"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_type": "dsik"}, "unknown cache type 'dsik'; did you mean 'disk'"),
        ({"mapping": {"a": "gpuu"}}, "unknown cache type 'gpuu'; did you mean 'gpu'"),
        ({"dtype": "float61"}, "unknown dtype 'float61' for a cache; did you mean 'float16'"),
        ({"batch_size": 0}, r"CacheConfig\(batch_size=...\) must be an integer of at least 1, got 0"),
        ({"num_workers": -1}, r"CacheConfig\(num_workers=...\) must be an integer of at least 0, got -1"),
        ({"batch_size": True}, "must be an integer of at least 1, got True"),
        ({"cache_type": "disk"}, r"a DISK cache needs a folder: set CacheConfig\(save_dir=...\)"),
        ({"mapping": {"a": "disk"}}, "a DISK cache needs a folder"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        CacheConfig(**settings)


def test_key_extractors_by_name():
    config = CacheConfig(key_extractors={"text": len})
    assert config.key_extractor("text") is len
    assert config.key_extractor("image") is None
    assert CacheConfig(key_extractors=len).key_extractor("image") is len


@pytest.mark.parametrize(
    ("config", "device", "expected"),
    [
        (CacheConfig(), "cpu", CacheType.CPU),
        (CacheConfig(), "cuda:0", CacheType.GPU),
        (CacheConfig(save_dir="x"), "cuda:0", CacheType.DISK),
        (CacheConfig("none"), "cpu", CacheType.NONE),
        (CacheConfig("gpu"), "cuda", CacheType.GPU),
        (CacheConfig("auto", mapping={"text": "none"}), "cpu", CacheType.NONE),
        (CacheConfig(mapping={"text": "auto"}), "cpu", CacheType.CPU),
    ],
)
def test_resolve_one_frozen_encoder(make_encoder, config, device, expected):
    assert resolve(config, {"text": make_encoder()}, device) == {"text": expected}


@pytest.mark.parametrize("config", [CacheConfig(), CacheConfig("cpu"), CacheConfig(mapping={"a": "auto", "b": "cpu"})])
def test_trainable_encoders_are_skipped(make_encoder, config):
    encoders = {"a": make_encoder(trainable=True), "b": make_encoder()}
    assert resolve(config, encoders, "cpu") == {"a": CacheType.NONE, "b": CacheType.CPU}


def test_auto_without_frozen_encoders_caches_nothing(make_encoder):
    assert resolve(CacheConfig(), {"a": make_encoder(trainable=True)}, "cpu") == {"a": CacheType.NONE}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CacheConfig(mapping={"text": "cpu"}), "the encoder 'text' is trainable, so its embeddings change"),
        (CacheConfig("cpu"), r"cache_type=CPU was asked for, but every encoder is trainable \(text\)"),
    ],
)
def test_caching_a_trainable_encoder_is_refused(make_encoder, config, message):
    with pytest.raises(ConfigError, match=message):
        resolve(config, {"text": make_encoder(trainable=True)}, "cpu")


def test_unknown_encoder_names_are_refused(make_encoder):
    with pytest.raises(ConfigError, match=r"CacheConfig\(mapping=...\) names no encoder 'txet'; did you mean 'text'"):
        resolve(CacheConfig(mapping={"txet": "cpu"}), {"text": make_encoder()}, "cpu")
    with pytest.raises(ConfigError, match=r"CacheConfig\(key_extractors=...\) names no encoder 'tex'"):
        resolve(CacheConfig(key_extractors={"tex": len}), {"text": make_encoder()}, "cpu")


def test_gpu_cache_needs_training_on_a_gpu(make_encoder):
    with pytest.raises(ConfigError, match="'text' is to be cached on the GPU, but training runs on the CPU"):
        resolve(CacheConfig("gpu"), {"text": make_encoder()}, "cpu")


@pytest.mark.usefixtures("without_type_checks")
def test_a_folder_is_a_path():
    with pytest.raises(ConfigError, match=r"CacheConfig\(save_dir=...\) should be a path, got 3"):
        CacheConfig(save_dir=3)
