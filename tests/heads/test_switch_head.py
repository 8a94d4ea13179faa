from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from simtrain import registry
from simtrain.errors import ConfigError, DataError, ServableError
from simtrain.heads import AsymmetricHead, EmptyHead, GatedHead, LinearHead, SequentialHead, SwitchHead

ADVICE = (
    r"^SwitchHead has to know each item's kind: give meta=\{'encoder': int64 codes of shape \(batch,\)\} with "
    r"0 = 'image', 1 = 'text', or a list of \{'encoder': NAME\}; in a model, a SwitchEncoder gives it$"
)


def switch(**words: Any) -> SwitchHead:
    # Not in the sorted order, in which codes count.
    return SwitchHead(options={"text": LinearHead(4, 3), "image": LinearHead(4, 3)}, **words)


def codes(*values: int) -> dict[str, Tensor]:
    return {"encoder": torch.tensor(values, dtype=torch.int64)}


@given(chosen=st.lists(st.integers(0, 2), max_size=7))
def test_each_item_goes_through_its_head_and_back_into_its_place(chosen: list[int]) -> None:
    heads = {"c": LinearHead(4, 3), "a": EmptyHead(4), "b": GatedHead(4)}
    heads["c"] = LinearHead(4, 4)
    head, vectors = SwitchHead(options=heads), torch.randn(len(chosen), 4)
    expected = [heads["abc"[code]](vectors[i : i + 1]) for i, code in enumerate(chosen)]
    output = head(vectors, meta=codes(*chosen))
    torch.testing.assert_close(output, torch.cat(expected) if expected else torch.zeros(0, 4))
    listed = head(vectors, meta=[{"encoder": "abc"[code], "more": 1} for code in chosen])
    assert torch.equal(listed, output)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64])
def test_codes_of_any_whole_numbers_do(dtype: torch.dtype) -> None:
    head, vectors = switch(), torch.randn(3, 4)
    output = head(vectors, meta={"encoder": torch.tensor([1, 0, 1], dtype=dtype)})
    assert torch.equal(output, head(vectors, meta=codes(1, 0, 1)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("of_codes", ["cpu", "cuda"])
def test_codes_on_either_device_do(of_codes: str) -> None:
    head, vectors = switch().cuda(), torch.randn(3, 4, device="cuda")
    output = head(vectors, meta={"encoder": torch.tensor([1, 0, 1], device=of_codes)})
    listed = head(vectors, meta=[{"encoder": name} for name in ("text", "image", "text")])
    assert torch.equal(output, listed)
    assert output.device.type == "cuda"


@pytest.mark.parametrize("meta", [None, {}, {"side": torch.tensor([0])}, {"encoder": ["text"]}, [{}], [None], "text"])
def test_without_knowing_the_items_it_says_what_to_do(meta: Any) -> None:
    with pytest.raises(DataError, match=ADVICE):
        switch()(torch.ones(1, 4), meta=meta)
    with pytest.raises(DataError, match=ADVICE):
        switch().transform(torch.ones(1, 4))


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (codes(0, 2), "^an item's code is 2; the codes are 0 = 'image', 1 = 'text'$"),
        (codes(-1, 0), "^an item's code is -1; the codes are"),
        (
            [{"encoder": "text"}, {"encoder": "imag"}],
            "^item 1 has the unknown encoder 'imag'; did you mean 'image'. Accepted: 'image', 'text'$",
        ),
        ([{"encoder": "text"}, {"encoder": 0}], "^item 1 has the unknown encoder 0; accepted: 'image', 'text'$"),
        (
            codes(0),
            r"^meta\['encoder'\] must hold one whole number for each of 2 items, got torch.int64 of shape \(1,\)$",
        ),
        ([{"encoder": "text"}], "^.* one whole number for each of 2 items"),
        ([], "^.* one whole number for each of 2 items"),
        ({"encoder": torch.zeros(2, 1, dtype=torch.int64)}, r"of shape \(2, 1\)$"),
        ({"encoder": torch.zeros(2)}, "got torch.float32"),
        ({"encoder": torch.zeros(2, dtype=torch.bool)}, "got torch.bool"),
    ],
)
def test_wrong_choices_are_errors(meta: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        switch()(torch.ones(2, 4), meta=meta)


def test_an_option_that_nobody_chose_takes_part_with_zero_gradients() -> None:
    head = switch()
    with torch.no_grad():
        head.options["image"].get_parameter("linear.weight").fill_(float("nan"))
    output = head(torch.ones(2, 4), meta=codes(1, 1))
    assert bool(output.isfinite().all()), "what is not chosen does not matter"
    output.sum().backward()
    for parameter in head.options["image"].parameters():
        assert parameter.grad is not None
        assert not bool(parameter.grad.any())
    assert bool(head.options["text"].get_parameter("linear.weight").grad.any())  # type: ignore[union-attr]


def test_frozen_options_stay_without_gradients() -> None:
    head = switch()
    head.requires_grad_(False)
    assert not head(torch.ones(2, 4), meta=codes(1, 1)).requires_grad


def test_an_option_with_batch_norm_may_be_left_out_of_a_batch() -> None:
    norm = SequentialHead(nn.BatchNorm1d(4), output_size=4)
    head = SwitchHead(options={"image": norm, "text": EmptyHead(4)}).train()
    head(torch.ones(2, 4), meta=codes(1, 1)).sum().backward()
    assert int(norm.get_submodule("_sequential.0").num_batches_tracked) == 0  # type: ignore[arg-type]


def test_under_autocast_the_finer_dtype_wins() -> None:
    head, vectors = SwitchHead(options={"a": EmptyHead(4), "b": LinearHead(4, 4)}), torch.randn(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert switch()(vectors, meta=codes(0, 1)).dtype == torch.bfloat16
        assert switch()(vectors, meta=codes(0, 0)).dtype == torch.bfloat16
        mixed = head(vectors, meta=codes(0, 1))
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed[0], vectors[0])


def test_each_head_is_given_what_is_known_of_its_own_items() -> None:
    sides = {"image": AsymmetricHead(4, query=GatedHead(4)), "text": EmptyHead(4)}
    head, vectors = SwitchHead(options=sides), torch.randn(4, 4)
    output = head(vectors, meta={**codes(0, 1, 0, 1), "side": torch.tensor([1, 0, 0, 1])})
    assert torch.equal(output[[0, 1, 3]], vectors[[0, 1, 3]])
    assert not torch.equal(output[2], vectors[2])
    kinds = ["image", "text", "image", "text"]
    names = ["document", "query", "query", "document"]
    listed = [{"encoder": kind, "side": side} for kind, side in zip(kinds, names, strict=True)]
    assert torch.equal(head(vectors, meta=listed), output)


def test_its_own_dropout_comes_before_that_of_the_heads() -> None:
    head = SwitchHead(options={"a": EmptyHead(400, dropout=0.5)}, dropout=0.5).train()
    kept = (head(torch.ones(50, 400), meta=codes(*[0] * 50)) != 0).float().mean()
    assert 0.24 < float(kept) < 0.26


def test_options_come_from_configs() -> None:
    options = {"image": {"type": "LinearHead", "output_size": 3}, "text": {"type": "StackedProjectionHead"}}
    options["text"]["output_sizes"] = [5, 3]
    head = registry.heads.build({"type": "SwitchHead", "options": options, "dropout": 0}, 4)
    assert head(torch.ones(2, 4), meta=codes(0, 1)).shape == (2, 3)
    assert "type" in options["text"], "the given config stays as it is"
    again = SwitchHead(**json.loads(json.dumps(head.get_config_dict())))
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(torch.ones(2, 4), meta=codes(0, 1)), head(torch.ones(2, 4), meta=codes(0, 1)))


def test_the_size_may_come_from_an_option_and_the_arguments_in_either_order() -> None:
    config = {"type": "EmptyHead"}
    for head in (
        SwitchHead({"a": GatedHead(4), "b": config}),
        SwitchHead(4, {"b": config}),
        SwitchHead({"b": config}, 4),
    ):
        assert head.input_embedding_size == 4
        assert head.options["b"].input_embedding_size == 4
        assert list(head.options) == sorted(head.options)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"options": {}}, r"^options must give a head or its config for one or more names, got \{\}"),
        ({"options": None}, "^options must give a head or its config for one or more names, got None"),
        ({"options": {"a": 3}}, r"^give input_embedding_size; none of option 'a' states it"),
        ({"options": {"a": 3}, "input_embedding_size": 4}, r"^option 'a' must be a head or its config .*, got int"),
        ({"options": {"a": nn.Linear(2, 2)}, "input_embedding_size": 2}, "^option 'a' must be a head .* got Linear"),
        ({"options": {"a": {"type": "EmptyHead"}}}, "^give input_embedding_size; none of option 'a' states it"),
        (
            {"options": {"a": {"type": "EmtyHead"}}, "input_embedding_size": 4},
            "^option 'a': unknown head type 'EmtyHead'; did you mean 'EmptyHead'",
        ),
        (
            {"options": {"a": EmptyHead(4), "b": EmptyHead(5)}},
            "^all must take the same vectors, but option 'b' takes 5 dimensions instead of 4",
        ),
        (
            {"options": {"a": EmptyHead(4)}, "input_embedding_size": 3},
            "^all must take the same vectors, but option 'a' takes 4 dimensions instead of 3",
        ),
        (
            {"options": {"a": EmptyHead(4), "b": LinearHead(4, 2)}},
            "^all must give the same number of dimensions, but option 'a' gives 4, option 'b' gives 2",
        ),
        ({"options": {"dropout": EmptyHead(4)}}, "^an option's name .* got 'dropout'; choose another"),
        ({"options": {"forward": EmptyHead(4)}}, "^an option's name .* got 'forward'"),
        ({"options": {"a.b": EmptyHead(4)}}, "^an option's name .* got 'a.b'"),
        ({"options": {"": EmptyHead(4)}}, "^an option's name .* got ''"),
        ({"options": {1: EmptyHead(4)}}, "^an option's name .* got 1"),
    ],
)
def test_options_that_do_not_fit_are_errors(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SwitchHead(**words)


class MyHead(EmptyHead):
    pass


def test_what_would_not_load_is_not_saved(tmp_path: Path) -> None:
    one = GatedHead(4)
    with pytest.raises(ConfigError, match=r"^option 'a' and option 'b' share the weight 'gates'"):
        SwitchHead(options={"a": one, "b": one}).save(tmp_path)
    with pytest.raises(ConfigError, match=r"^option 'a' is a Silent, which cannot be saved: it has no get_config_dict"):
        SwitchHead(4, options={"a": Silent()}).save(tmp_path)
    assert not list(tmp_path.iterdir())


class Silent(nn.Module):
    """Looks like a head, and does not say how it was built."""

    output_size = 4


def test_a_head_of_the_users_own_in_it_is_loaded_where_it_is_allowed(tmp_path: Path) -> None:
    nested = AsymmetricHead(query=SwitchHead(options={"a": MyHead(4, dropout=0.5), "b": GatedHead(4)}))
    nested.save(tmp_path)
    message = r"the query side: option 'a': unknown head type '.*:MyHead'.* pass load\(\.\.\., allow=\[MyHead\]\)"
    with pytest.raises(ServableError, match=message):
        AsymmetricHead.load(tmp_path)
    loaded = AsymmetricHead.load(tmp_path, allow=[MyHead])
    assert type(loaded.query.options["a"]) is MyHead
    assert loaded.get_config_dict() == nested.get_config_dict()
    with pytest.raises(ServableError):
        AsymmetricHead.load(tmp_path)  # what one call allows is not allowed to the next


def test_a_head_named_in_a_config_has_to_be_registered() -> None:
    with pytest.raises(ConfigError, match=r"option 'a': unknown head type .*:MyHead"):
        SwitchHead(4, options={"a": {"type": f"{MyHead.__module__}:MyHead", "input_embedding_size": 4}})


def test_settings_that_an_allowed_head_does_not_take_are_named(tmp_path: Path) -> None:
    SwitchHead(options={"a": MyHead(4)}).save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"dropout"', '"dropin"'))
    with pytest.raises(ServableError, match=r"config\.json.*'dropin'"):
        SwitchHead.load(tmp_path, allow=[MyHead])


def test_a_folder_that_names_other_classes_is_refused(tmp_path: Path) -> None:
    switch().save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"LinearHead"', '"subprocess.Popen"', 1))
    with pytest.raises(ServableError, match="does not describe a SwitchHead: option 'image': unknown head type"):
        SwitchHead.load(tmp_path)
