from __future__ import annotations

import argparse
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from simtrain.errors import CheckpointError
from simtrain.training.checkpoint_weights import load_weights, read_weights


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.path,))


class Counter(nn.Module):
    """Has extra state that is no tensor."""

    def __init__(self, count: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.count = count

    def get_extra_state(self) -> dict[str, int]:
        return {"count": self.count}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.count = state["count"]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 2)
        self.out = nn.Linear(2, 4, bias=False)
        self.out.weight = self.embed.weight


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def same(model: nn.Module, weights: dict[str, Any]) -> bool:
    state = model.state_dict()
    return state.keys() == weights.keys() and all(torch.equal(state[name], weights[name]) for name in state)


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("key", [None, "model", "state_dict", "model_state_dict"])
def test_weights_are_found_bare_or_among_other_entries(tmp_path: Path, key: str | None, zipped: bool) -> None:
    state = small().state_dict()
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}}
    others = {"epoch": 3, "optimizer": optimizer, "meta": {"version": "1", "shape": [2, (3,)]}, "none": None}
    content = state if key is None else {**others, key: state}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    model = small()
    assert load_weights(model, tmp_path / "x.pt") == []
    assert same(model, state)


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_safetensors_are_known_by_name_or_content(tmp_path: Path, name: str) -> None:
    state = small().state_dict()
    save_file(state, tmp_path / name)
    model = small()
    assert load_weights(model, str(tmp_path / name)) == []
    assert same(model, state)


def test_a_config_under_model_is_not_taken_for_weights(tmp_path: Path) -> None:
    state = small().state_dict()
    torch.save({"model": {"type": "Small"}, "state_dict": state}, tmp_path / "x.pt")
    assert read_weights(tmp_path / "x.pt").keys() == state.keys()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    made = tmp_path / "made"
    torch.save(
        {"model": small().state_dict(), "x": Bomb(made)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(CheckpointError, match="only tensors and plain containers are loaded") as error:
        read_weights(tmp_path / "x.pt")
    assert "mkdir" in str(error.value)
    assert "torch.save(model.state_dict(), path)" in str(error.value)
    assert not made.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"w": Bomb(made)}, protocol))
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "x.pkl")
    assert not made.exists()


def test_the_bomb_of_these_tests_does_go_off(tmp_path: Path) -> None:
    torch.save(Bomb(tmp_path / "made"), tmp_path / "x.pt")
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(("content", "word"), [(nn.Linear(1, 1), "Linear"), (argparse.Namespace(a=1), "Namespace")])
def test_objects_are_refused_by_name(tmp_path: Path, content: Any, word: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=rf"x\.pt holds \S*{word}, but only tensors"):
        read_weights(tmp_path / "x.pt")


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_weights(_as_torchscript(tmp_path))


def _as_torchscript(folder: Path) -> Path:
    """A zip with the record by which torch knows TorchScript."""
    writer = torch._C.PyTorchFileWriter(str(folder / "script.pt"))
    writer.write_record("data.pkl", b"\x80\x02}.", 4)
    writer.write_record("constants.pkl", b"\x80\x02).", 4)
    writer.write_end_of_file()
    return folder / "script.pt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no tensors, only an empty dict"),
        ({"epoch": 3, "model": {}}, "holds no tensors, only 'epoch', 'model'"),
        ([torch.ones(1)], "holds no state dict, but a value of <class 'list'>"),
        (torch.ones(1), "holds no state dict, but a value of <class 'torch.Tensor'>"),
        (3, "holds no state dict, but a value of <class 'int'>"),
    ],
)
def test_a_file_without_weights_is_an_error(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path / "x.pt")


def test_safetensors_without_tensors_are_an_error(tmp_path: Path) -> None:
    save_file({}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_an_error(tmp_path: Path, kind: str, share: float) -> None:
    file = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pt")
    if kind == "safetensors":
        save_file(small().state_dict(), file)
    else:
        torch.save(small().state_dict(), file, _use_new_zipfile_serialization=kind == "zip")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"damaged|cut off|no checkpoint"):
        read_weights(file)


@pytest.mark.parametrize("content", [b"hello, this is a text\n", bytes(range(256)), b"\x00", b"<html>not found</html>"])
def test_any_other_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    for name in ("x.pt", "x.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            read_weights(tmp_path / name)


def test_missing_empty_and_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    for path, message in (("none.pt", "there is no"), ("empty.pt", "is empty"), (".", "is a folder")):
        with pytest.raises(CheckpointError, match=message):
            read_weights(tmp_path / path)


def test_missing_names_are_returned_and_unexpected_ones_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"0.weight": torch.ones(2, 3), **{f"other.{i}": torch.ones(1) for i in range(7)}}
    torch.save(state, tmp_path / "x.pt")
    model = small()
    before = model[0].bias.clone()
    with caplog.at_level(logging.WARNING):
        missing = load_weights(model, tmp_path / "x.pt")
    # torch itself gives num_batches_tracked its default where an old checkpoint lacks it.
    assert missing == ["0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert model[0].weight.eq(1).all()
    assert torch.equal(model[0].bias, before)
    [record] = caplog.records
    message = record.getMessage()
    assert "7 names are not in the model" in message
    assert "'other.4' (and 2 more)" in message
    assert "other.5" not in message


def test_every_wrong_shape_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    state = small().state_dict()
    state.update({"0.weight": torch.ones(2, 4), "1.bias": torch.ones(5)})
    torch.save(state, tmp_path / "x.pt")
    model = small()
    before = snapshot(model)
    with pytest.raises(CheckpointError) as error:
        load_weights(model, tmp_path / "x.pt")
    assert "'0.weight' is (2, 4) in the file and (2, 3) in the model" in str(error.value)
    assert "'1.bias' is (5,) in the file and (2,) in the model" in str(error.value)
    assert same(model, before)


def test_of_many_wrong_shapes_five_are_named(tmp_path: Path) -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    torch.save({name: torch.ones(9) for name in model.state_dict()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"\(and 3 more\)$"):
        load_weights(model, tmp_path / "x.pt")


def test_a_foreign_file_is_an_error_that_shows_both_sides(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"the file has 'conv1.weight', the model has '0.weight', '0.bias'"):
        load_weights(small(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="the model has none"):
        load_weights(nn.ReLU(), tmp_path / "x.pt")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_do_not_matter(tmp_path: Path, prefix: str) -> None:
    state = small().state_dict()
    torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "x.pt")
    model = small()
    assert load_weights(model, tmp_path / "x.pt") == []
    assert same(model, state)


def test_weights_go_into_wrapped_models_and_out_of_compiled_parts(tmp_path: Path) -> None:
    state = small().state_dict()
    torch.save(state, tmp_path / "x.pt")
    for wrapped in (nn.DataParallel(small()), torch.compile(small(), backend="eager")):
        assert load_weights(wrapped, tmp_path / "x.pt") == []
        assert all(torch.equal(a, b) for a, b in zip(wrapped.state_dict().values(), state.values(), strict=True))
    inside = {name.replace("0.", "0._orig_mod."): value for name, value in state.items()}
    torch.save(inside, tmp_path / "y.pt")
    assert load_weights(small(), tmp_path / "y.pt") == []


def test_a_submodule_that_is_called_module_keeps_its_name(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 1), "other": nn.Linear(2, 1)})
    state = snapshot(model)
    torch.save(state, tmp_path / "x.pt")
    fresh = nn.ModuleDict({"module": nn.Linear(2, 1), "other": nn.Linear(2, 1)})
    assert load_weights(fresh, tmp_path / "x.pt") == []
    assert same(fresh, state)


def test_versions_of_modules_survive_prefixes(tmp_path: Path) -> None:
    """Only an old BatchNorm may lack num_batches_tracked; torch tells by the version."""
    full = nn.DataParallel(small()).state_dict()
    del full["module.1.num_batches_tracked"]
    torch.save(full, tmp_path / "x.pt")
    assert load_weights(small(), tmp_path / "x.pt") == ["1.num_batches_tracked"]


def test_extra_state_is_loaded(tmp_path: Path) -> None:
    for content in (Counter(7).state_dict(), {"state_dict": Counter(7).state_dict()}):
        torch.save(content, tmp_path / "x.pt")
        model = Counter()
        assert load_weights(model, tmp_path / "x.pt") == []
        assert model.count == 7
    torch.save({"linear.weight": torch.ones(1, 2), "linear.bias": torch.ones(1)}, tmp_path / "x.pt")
    assert load_weights(Counter(), tmp_path / "x.pt") == ["_extra_state"]


@pytest.mark.parametrize(("saved", "wanted"), [("float32", "bfloat16"), ("float16", "float64"), ("float64", "float32")])
def test_floating_dtypes_are_converted(tmp_path: Path, saved: str, wanted: str) -> None:
    state = nn.Linear(3, 2).to(getattr(torch, saved)).state_dict()
    torch.save(state, tmp_path / "x.pt")
    model = nn.Linear(3, 2).to(getattr(torch, wanted))
    parameter = model.weight
    assert load_weights(model, tmp_path / "x.pt") == []
    assert model.weight is parameter
    assert torch.equal(model.weight, state["weight"].to(model.weight.dtype))


def test_tied_weights_are_not_missing_under_their_other_name(tmp_path: Path) -> None:
    source, model = Tied(), Tied()
    save_model(source, str(tmp_path / "x.safetensors"))
    assert len(read_weights(tmp_path / "x.safetensors")) == 1, "safetensors keeps shared tensors once"
    assert load_weights(model, tmp_path / "x.safetensors") == []
    assert torch.equal(model.out.weight, source.embed.weight)
    assert model.out.weight is model.embed.weight


def test_lazy_layers_take_the_files_shape(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "x.pt")
    model = nn.LazyLinear(2)
    assert load_weights(model, tmp_path / "x.pt") == []
    assert model.weight.shape == (2, 3)


def test_a_model_without_memory_is_an_error(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="to_empty"):
        load_weights(nn.Linear(3, 2, device="meta"), tmp_path / "x.pt")


def test_parts_that_translate_checkpoints_do_so_before_shapes_are_compared(tmp_path: Path) -> None:
    def transpose(state: dict[str, Any], prefix: str, *_: Any) -> None:
        state[f"{prefix}weight"] = state[f"{prefix}weight"].T

    torch.save({"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.ones(2)}, tmp_path / "x.pt")
    model = nn.Linear(3, 2)
    model._register_load_state_dict_pre_hook(transpose)
    assert load_weights(model, tmp_path / "x.pt") == []
    assert torch.equal(model.weight, torch.arange(6.0).reshape(3, 2).T)
    torch.save({"weight": torch.ones(5, 5), "bias": torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt does not fit Linear: .*size mismatch"):
        load_weights(model, tmp_path / "x.pt")
