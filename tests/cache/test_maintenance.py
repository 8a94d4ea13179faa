import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from typer.testing import CliRunner

from simtrain.cache import CacheConfig, DiskStore, item_keys, open_cache
from simtrain.cache.maintenance import is_cache, list_caches, mend_cache, remove_cache, verify_cache
from simtrain.cli import app
from simtrain.errors import CacheError, ConfigError, DataError

TEXTS = [f"text {number}" for number in range(30)]


@pytest.fixture
def started():
    """When a test began; named before ``caches``, which it is to be older than."""
    return time.time()


@pytest.fixture
def caches(make_encoder, tmp_path):
    """A text cache, an older image cache, and things that are no caches."""
    config = CacheConfig("disk", save_dir=tmp_path / "caches", dtype="float16")
    opened = {name: open_cache(name, make_encoder(scale=len(name)), config, "disk") for name in ("text", "image")}
    for cache in opened.values():
        cache.fill(TEXTS)
    folders = {name: cache.store.folder for name, cache in opened.items()}
    os.utime(folders["image"] / "manifest.json", (0, 0))
    (tmp_path / "caches" / "model").mkdir()
    (tmp_path / "caches" / "model" / "manifest.json").write_text('{"files": []}')
    (tmp_path / "caches" / "notes.txt").write_text("mine")
    return folders


def run(*words):
    result = CliRunner().invoke(app, ["cache", *(str(word) for word in words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def damage(folder, name="segment-000000.npy"):
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)


def root(caches):
    return caches["text"].parent


def test_caches_are_listed_with_what_they_hold(started, caches):
    infos = list_caches(root(caches))
    assert [info.name for info in infos] == ["text", "image"]
    text = infos[0]
    assert (text.encoder, text.rows, text.dim, text.dtype, text.fault) == ("DigestEncoder", 30, 4, "float16", "")
    assert text.size == sum(path.stat().st_size for path in caches["text"].iterdir())
    # A file's time may be some milliseconds behind the clock.
    assert started - 1 < text.last_used < time.time() + 1
    assert list_caches(caches["text"]) == [text]
    lines = run("ls", root(caches)).output.splitlines()
    assert lines[0].split() == ["NAME", "ENCODER", "ROWS", "DIM", "DTYPE", "SIZE", "LAST", "USED", "FOLDER"]
    assert lines[1].split()[:5] == ["text", "DigestEncoder", "30", "4", "float16"]
    values = json.loads(run("ls", root(caches), "--json").output)
    assert [(value["name"], value["rows"]) for value in values] == [("text", 30), ("image", 30)]
    assert values[1]["last_used"] == "1970-01-01T00:00:00+00:00"


def test_opening_a_cache_counts_as_use(started, caches, make_encoder):
    config = CacheConfig("disk", save_dir=root(caches), dtype="float16")
    open_cache("image", make_encoder(scale=5), config, "disk")
    assert list_caches(caches["image"])[0].last_used > started - 1


def test_whole_caches_are_verified_with_exit_code_0(caches):
    result = run("verify", root(caches))
    assert result.exit_code == 0
    assert result.output.splitlines()[0] == f"{caches['text']}: 30 embeddings, whole"


@pytest.mark.parametrize("name", ["segment-000000.npy", "segment-000000.keys.npy"])
def test_damage_is_named_with_exit_code_1(caches, name):
    damage(caches["text"], name)
    result = run("verify", root(caches))
    assert result.exit_code == 1
    assert f"{caches['text']}: {name} does not match its checksum; 30 embeddings will be" in result.output
    values = json.loads(run("verify", root(caches), "--json").output)
    assert [len(value["damages"]) for value in values] == [1, 0]
    assert values[0]["damages"][0]["rows"] == 30


def test_a_damaged_manifest_is_named(caches):
    (caches["text"] / "manifest.json").write_text("{")
    result = run("verify", caches["text"])
    assert result.exit_code == 1
    assert "manifest.json is damaged; all its embeddings will be computed again" in result.output
    assert "damaged" in run("ls", caches["text"]).output


def test_the_command_ends_with_the_exit_code(caches):
    damage(caches["text"])
    command = [Path(sys.executable).with_name("simtrain"), "cache", "verify", root(caches)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--older-than", "30d"], {"text"}),
        (["--name", "te*"], {"image"}),
        (["--name", "te*", "--older-than", "1h"], {"text", "image"}),
        (["--larger-than", "1KB"], set()),
        (["--larger-than", "1GB"], {"text", "image"}),
        (["--damaged"], {"text", "image"}),
    ],
)
def test_prune_removes_what_all_conditions_hold_for_and_nothing_else(caches, words, left):
    assert run("prune", root(caches), *words, "--dry-run").exit_code == 0
    assert all(folder.exists() for folder in caches.values())
    assert run("prune", root(caches), *words, "--yes").exit_code == 0
    assert {name for name, folder in caches.items() if folder.exists()} == left
    assert (root(caches) / "model" / "manifest.json").exists()
    assert (root(caches) / "notes.txt").read_text() == "mine"


def test_prune_asks_first(caches):
    for answer, code, exists in (("n\n", 1, True), ("", 1, True), ("y\n", 0, False)):
        result = CliRunner().invoke(app, ["cache", "prune", str(root(caches)), "--name", "text"], input=answer)
        assert "remove these (" in result.output
        assert (result.exit_code, caches["text"].exists()) == (code, exists)


def test_prune_of_damage_keeps_what_is_whole(make_encoder, tmp_path):
    keys, vectors = item_keys(TEXTS), torch.randn(30, 2)
    store = DiskStore(tmp_path / "c", 2, segment_rows=10)
    with store.writing():
        store.append(keys, vectors)
    damage(tmp_path / "c", "segment-000001.npy")
    values = json.loads(run("prune", tmp_path, "--damaged", "--yes", "--json").output)
    assert [value["result"] for value in values] == ["mended"]
    assert verify_cache(tmp_path / "c") == []
    rows = DiskStore(tmp_path / "c", 2).lookup(keys)
    assert (rows >= 0).tolist() == [True] * 10 + [False] * 10 + [True] * 10
    assert mend_cache(tmp_path / "c")


def test_a_cache_that_is_being_filled_is_left_alone(caches):
    with FileLock(caches["text"] / ".lock"):
        result = run("prune", root(caches), "--name", "*", "--yes")
    assert f"{caches['text']}: another process fills it; left as it is" in result.output
    assert verify_cache(caches["text"]) == []
    assert not caches["image"].exists()


def test_files_of_others_in_a_cache_are_kept(caches):
    (caches["text"] / "notes.txt").write_text("mine")
    assert remove_cache(caches["text"])
    assert [path.name for path in caches["text"].iterdir() if path.name != ".lock"] == ["notes.txt"]


def test_a_folder_that_is_no_cache_is_never_removed(caches, tmp_path):
    (tmp_path / "manifest.json").write_text('{"segments": []}')
    for folder in (tmp_path, root(caches), root(caches) / "model", tmp_path / "none"):
        assert not folder.is_dir() or not is_cache(folder)
        with pytest.raises(CacheError, match="is not a cache; nothing was changed"):
            remove_cache(folder)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["ls", "none"], DataError, "there is no folder 'none'; give the save_dir of a CacheConfig"),
        (["prune", "."], ConfigError, "say what to prune: --older-than, --larger-than, --name or --damaged"),
        (["prune", ".", "--name", "*", "--json"], ConfigError, "prune --json cannot ask; add --yes or --dry-run"),
        (["prune", ".", "--older-than", "30y"], ConfigError, "a time such as 12h, 30d or 8w was expected, got '30y'"),
        (["prune", ".", "--larger-than", "x"], ConfigError, "a size such as 500MB or 2GB was expected, got 'x'"),
    ],
)
def test_wrong_words_are_one_sentence(words, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message.replace("*", r"\*")):
        run(*words)


def test_an_empty_folder_has_no_caches(tmp_path):
    assert run("ls", tmp_path).output == f"no caches in {tmp_path}\n"
    assert run("verify", tmp_path).output == f"no caches in {tmp_path}\n"
    assert json.loads(run("verify", tmp_path, "--json").output) == []
    assert json.loads(run("ls", tmp_path, "--json").output) == []
