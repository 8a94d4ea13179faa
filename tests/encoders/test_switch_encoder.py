from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from simtrain import registry
from simtrain.cache.fingerprint import encoder_fingerprint
from simtrain.data.sides import DOCUMENT, QUERY, Prompts
from simtrain.data.transfer import move_to
from simtrain.encoders import Encoder, ItemError, ModuleEncoder, NgramEncoder, PrecomputedEncoder, SwitchEncoder
from simtrain.encoders.item_kinds import kind_of
from simtrain.errors import ConfigError, ServableError
from simtrain.heads import EmptyHead, GatedHead, SwitchHead
from simtrain.models import SimilarityModel


class BySize(SwitchEncoder):
    """Lists of one number, of two, of more."""

    @classmethod
    def encoder_selection(cls, record: Any) -> str:
        return {1: "one", 2: "two"}.get(len(record), "many")


class Scaled(Encoder):
    """Gives the first number times a factor, and notes how it is run."""

    embedding_size = 2

    def __init__(self, factor: float, trainable: bool = False, prompts: Prompts | None = None) -> None:
        super().__init__()
        self.factor, self.is_trainable, self.prompts = nn.Parameter(torch.tensor(factor)), trainable, prompts
        self.dropout = nn.Dropout(0.9)
        self.grad_modes: list[bool] = []

    @property
    def trainable(self) -> bool:
        return self.is_trainable

    def get_collate_fn(self) -> Any:
        return first_numbers

    def get_side_fn(self) -> Any:
        return self.prompts

    def item_length(self, item: Any) -> int:
        return 10 * len(item)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.grad_modes.append(torch.is_grad_enabled())
        return self.dropout(torch.ones_like(batch)) * batch * self.factor


def first_numbers(items: list[Any]) -> torch.Tensor:
    for position, item in enumerate(items):
        if item[0] == -1:
            raise ItemError(position, "is -1")
    return torch.tensor([[float(item[0])] * 2 for item in items])


def by_size(**trainable: bool) -> BySize:
    factors = {"one": 10.0, "two": 100.0, "many": 1000.0}
    return BySize({name: Scaled(factor, trainable.get(name, False)) for name, factor in factors.items()})


def embed(encoder: SwitchEncoder, items: list[Any]) -> torch.Tensor:
    return encoder(encoder.get_collate_fn()(items))


@given(st.lists(st.integers(1, 4), max_size=12))
def test_rows_are_in_the_order_of_the_items(lengths: list[int]) -> None:
    items = [[i] * length for i, length in enumerate(lengths)]
    factors = {1: 10, 2: 100}
    expected = [[i * factors.get(length, 1000)] * 2 for i, length in enumerate(lengths)]
    embeddings = embed(by_size().eval(), items)
    assert embeddings.shape == (len(items), 2)
    assert embeddings.tolist() == expected


def test_a_batch_holds_only_what_is_needed() -> None:
    batch = by_size().get_collate_fn()([[3], [4, 4, 4], [5]])
    assert {name: rows.tolist() for name, rows in batch["ordering"].items()} == {"many": [1], "one": [0, 2]}
    assert all(rows.dtype is torch.int64 for rows in batch["ordering"].values())
    assert batch["batches"].keys() == batch["ordering"].keys()
    assert by_size().get_collate_fn()([]) == {"ordering": {}, "batches": {}}


def test_batches_of_quaterion_models_are_taken() -> None:
    encoder = by_size().eval()
    batch = {"ordering": {"two": [1], "one": [0, 2]}, "batches": {"two": torch.ones(1, 2), "one": torch.ones(2, 2)}}
    assert encoder(batch)[:, 0].tolist() == [10, 100, 10]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("items", [[[7]], [[1], [2, 2], [3]]])
def test_indices_follow_the_embeddings(items: list[Any], device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    encoder = by_size().eval().to(device)
    batch = encoder.get_collate_fn()(items)
    expected = embed(by_size().eval(), items)
    for moved in (move_to(batch, device), {**batch, "batches": move_to(batch["batches"], device)}):
        assert encoder(moved).device.type == device
        assert torch.equal(encoder(moved).cpu(), expected)
    assert encoder({"ordering": {}, "batches": {}}).device.type == device


def test_frozen_options_stay_in_eval_mode_without_autograd_beside_trained_ones() -> None:
    encoder = by_size(two=True)
    assert encoder.trainable
    assert encoder.train() is encoder
    options = encoder.options
    assert not options["one"].dropout.training
    assert options["two"].dropout.training
    embeddings = embed(encoder, [[1], [2, 2], [3]])
    assert (options["one"].grad_modes, options["two"].grad_modes) == ([False], [True])
    embeddings.sum().backward()
    assert options["one"].factor.grad is None
    assert options["two"].factor.grad is not None
    assert not options["one"].factor.requires_grad
    assert not by_size().trainable
    assert not any(part.training for option in by_size().train().options.values() for part in option.modules())


def test_an_option_without_items_gets_zero_gradients() -> None:
    encoder = by_size(one=True, two=True)
    embed(encoder, [[1], [3]]).sum().backward()
    assert encoder.options["two"].factor.grad == 0
    encoder.zero_grad()
    embed(encoder, []).sum().backward()
    assert encoder.options["one"].factor.grad == 0


def test_inference_mode_leaves_no_graph() -> None:
    with torch.inference_mode():
        assert embed(by_size(one=True), [[1], [2, 2]]).is_inference()


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ("shoe.png", "text"),
        (Path("shoe.png"), "image"),
        (b"\x89PNG", "image"),
        (np.zeros((2, 2, 3)), "image"),
        (torch.zeros(3, 2, 2), "image"),
        (7, "int"),
        (None, "NoneType"),
    ],
)
def test_kinds_by_type(item: Any, kind: str) -> None:
    assert kind_of(item) == kind


def test_pil_images_are_images() -> None:
    image = pytest.importorskip("PIL.Image")
    assert kind_of(image.new("RGB", (2, 2))) == "image"


def test_texts_and_images_in_one_space() -> None:
    encoder = SwitchEncoder({"text": NgramEncoder(4), "image": ModuleEncoder(nn.Flatten(), 4)})
    collate = pickle.loads(pickle.dumps(encoder.get_collate_fn()))
    embeddings = encoder(collate(["a", np.ones((2, 2), np.float32), "b"]))
    assert embeddings[1].tolist() == [1, 1, 1, 1]
    text = NgramEncoder(4)
    text.load_state_dict(encoder.options["text"].state_dict())
    assert torch.equal(embeddings[[0, 2]], text(text.get_collate_fn()(["a", "b"])))
    with pytest.raises(ItemError, match=r"item 1 \(int 3\) asks for the unknown encoder 'int'; accepted: 'image', 't"):
        collate(["a", 3])


def test_it_may_have_one_option_only() -> None:
    encoder = SwitchEncoder({"text": NgramEncoder(4)})
    assert embed(encoder, ["a"]).shape == (1, 4)
    with pytest.raises(ItemError, match=r"item 0 .* asks for the unknown encoder 'image'"):
        encoder.get_meta_extractor()([torch.zeros(2)])


def test_errors_count_in_the_whole_batch() -> None:
    with pytest.raises(ItemError, match=r"^item 2 is -1$"):
        by_size().get_collate_fn()([[1, 1], [2], [-1], [3]])


def test_meta_names_the_encoder_of_each_item() -> None:
    extract = pickle.loads(pickle.dumps(by_size().get_meta_extractor()))
    assert extract([[1], [1, 1], [1, 1, 1]]) == [{"encoder": "one"}, {"encoder": "two"}, {"encoder": "many"}]
    assert extract([]) == []


def test_a_switch_head_takes_its_meta() -> None:
    encoder = by_size().eval()
    head = SwitchHead(options={"one": EmptyHead(2), "two": GatedHead(2), "many": EmptyHead(2)})
    items = [[1], [2, 2], [3]]
    transformed = head(embed(encoder, items), meta=encoder.get_meta_extractor()(items))
    assert transformed[[0, 2]].tolist() == embed(encoder, items)[[0, 2]].tolist()
    assert not torch.equal(transformed[1], embed(encoder, items)[1])


def test_sides_are_marked_by_each_items_own_encoder() -> None:
    class Texts(BySize):
        pass

    prompts = Prompts("q: ", "d: ")
    encoder = Texts({"one": Scaled(1.0, prompts=prompts), "two": Scaled(1.0), "many": Scaled(1.0, prompts=prompts)})
    mark = encoder.get_side_fn()
    assert mark is not None
    items = ["a", "bb", "ccc", "d"]
    assert mark(items, [DOCUMENT, QUERY, QUERY, QUERY]) == ["d: a", "bb", "q: ccc", "q: d"]
    assert items == ["a", "bb", "ccc", "d"]
    assert by_size().get_side_fn() is None


def test_lengths_are_those_of_the_options() -> None:
    assert by_size().item_length([1, 1]) == 20
    assert SwitchEncoder({"image": ModuleEncoder(nn.Identity(), 1)}).item_length("no image") == 0


def test_in_a_model_it_encodes_mixed_items() -> None:
    model = SimilarityModel(by_size(), EmptyHead(2))
    assert model.encode([[[1], [2, 2], [3]][i] for i in (2, 1, 0)])[:, 0].tolist() == [30, 200, 10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"options must give one or more encoders by name, got \{\}"),
        ({"text": NgramEncoder(2), "image": NgramEncoder(3)}, "but 'image' gives 3, 'text' gives 2"),
        ({"text": nn.Linear(1, 1)}, r"option 'text' must be a simtrain\.encoders\.Encoder, got Linear"),
        ({"words": NgramEncoder(2)}, "never to 'words'; rename it, or subclass SwitchEncoder and override"),
        ({"forward": NgramEncoder(2)}, "none that the switch uses itself, got 'forward'"),
        ({"../x": NgramEncoder(2)}, "letters, digits, '_' and '-', .* got '../x'"),
        ({1: NgramEncoder(2)}, "letters, digits, '_' and '-', .* got 1"),
    ],
)
def test_wrong_options_are_refused(options: Any, message: str, without_type_checks: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        SwitchEncoder(options)


def test_saves_nested_folders(tmp_path: Path) -> None:
    saved = SwitchEncoder({"text": NgramEncoder(4, 50), "image": PrecomputedEncoder(4)})
    saved.save(tmp_path)
    assert {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()} == {
        "encoder.json",
        "image/encoder.json",
        "text/encoder.json",
        "text/weights.safetensors",
    }
    loaded = SwitchEncoder.load(tmp_path)
    items = ["a", np.ones(4), "b"]
    assert torch.equal(embed(loaded, items), embed(saved, items))
    assert loaded.get_config_dict() == saved.get_config_dict()
    assert encoder_fingerprint(loaded) == encoder_fingerprint(saved)


def test_a_model_with_it_is_saved_and_loaded(tmp_path: Path) -> None:
    saved = SimilarityModel(SwitchEncoder({"text": NgramEncoder(4, 50), "image": PrecomputedEncoder(4)}), EmptyHead(4))
    saved.save(tmp_path / "model")
    loaded = SimilarityModel.load(tmp_path / "model")
    items = ["a", np.ones(4), "b"]
    np.testing.assert_array_equal(loaded.encode(items), saved.encode(items))


def test_only_registered_or_allowed_classes_are_loaded(tmp_path: Path) -> None:
    SwitchEncoder({"image": PrecomputedEncoder(4)}).save(tmp_path)
    damages = [{"image": {"type": "os:system"}}, {"image": "x"}, {}, {"../up": {"type": "PrecomputedEncoder"}}]
    for entries in damages:
        (tmp_path / "encoder.json").write_text(json.dumps({"options": entries}))
        with pytest.raises(
            ServableError, match=r"encoder\.json (holds an encoder of the class|must give|has an encoder)"
        ):
            SwitchEncoder.load(tmp_path)
    (tmp_path / "encoder.json").write_text(json.dumps({"options": {"pic": {"type": "PrecomputedEncoder"}}}))
    (tmp_path / "image").rename(tmp_path / "pic")
    with pytest.raises(ServableError, match="does not describe a SwitchEncoder: by their type, items go to"):
        SwitchEncoder.load(tmp_path)
    assert "SwitchEncoder" in registry.encoders.names()
