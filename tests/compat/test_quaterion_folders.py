"""Whole folders against the real quaterion-models: its own load here, ours load there, and embeddings are equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from simtrain import heads
from simtrain.encoders import (
    NgramEncoder,
)
from simtrain.errors import ServableError
from simtrain.models import SimilarityModel
from tests.compat.quaterion_parts import (
    LAYERS_OF,
    SIZES,
    TEXTS,
    ByLength,
    Letters,
    OurByLength,
    Scaling,
    assert_equal,
    load_there,
    our_encoders,
    randomized,
    their_encoders,
)

quaterion: Any = pytest.importorskip("quaterion_models")
quaterion_heads: Any = pytest.importorskip("quaterion_models.heads")


# -- every head, for models of one and of two encoders

SIMPLE: list[tuple[str, dict[str, Any]]] = [
    ("EmptyHead", {"dropout": 0.1}),
    ("GatedHead", {}),
    ("SkipConnectionHead", {"dropout": 0.1, "skip_dropout": 0.2, "n_layers": 2}),
    ("SoftmaxEmbeddingsHead", {"output_groups": 2, "output_size_per_group": 4}),
    ("StackedProjectionHead", {"output_sizes": [7, 2], "activation_fn": "gelu", "dropout": 0.1}),
    ("WideningHead", {"expansion_factor": 1.7, "activation_fn": "tanh"}),
]


def built(room: Any, name: str, words: dict[str, Any], size: int) -> Any:
    if name == "SequentialHead":
        return room.SequentialHead(*LAYERS_OF[words["layers"]](size), output_size=4)
    return getattr(room, name)(input_embedding_size=size, **words)


HEADS = [*SIMPLE, ("SequentialHead", {"layers": "plain"}), ("SequentialHead", {"layers": "norms"})]


def test_every_head_of_theirs_is_tried() -> None:
    theirs = {name for name in dir(quaterion_heads) if name.endswith("Head") and name != "EncoderHead"}
    assert {name for name, _ in HEADS} | {"SwitchHead"} == theirs


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize(("name", "words"), HEADS)
def test_their_folder_loads_here(tmp_path: Path, name: str, words: dict[str, Any], count: str) -> None:
    head = built(quaterion_heads, name, words, SIZES[count])
    there = randomized(quaterion.SimilarityModel(their_encoders(count), head))
    there.save(str(tmp_path))
    here = SimilarityModel.load(tmp_path, allow=[Letters])
    assert type(here.head) is getattr(heads, name)
    assert not here.training
    assert_equal(here, there)


@pytest.mark.parametrize("of", [our_encoders, their_encoders])
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize(("name", "words"), HEADS)
def test_our_folder_loads_there_and_here(tmp_path: Path, name: str, words: dict[str, Any], count: str, of: Any) -> None:
    here = randomized(SimilarityModel(of(count), built(heads, name, words, SIZES[count])))
    here.save(tmp_path / "new" / "model", format="quaterion")
    there = load_there(tmp_path / "new" / "model")
    texts = TEXTS if of is their_encoders else [text or "x" for text in TEXTS]
    assert type(there.head) is getattr(quaterion_heads, name)
    assert_equal(here, there, texts)
    again = SimilarityModel.load(tmp_path / "new" / "model", allow=[Letters])
    np.testing.assert_array_equal(again.encode(texts), here.encode(texts))
    assert {name: type(encoder) for name, encoder in again.encoders.items()} == {
        name: type(encoder) for name, encoder in here.encoders.items()
    }


@pytest.mark.parametrize("of", [our_encoders, their_encoders])
def test_what_they_save_again_is_the_same_model(tmp_path: Path, of: Any) -> None:
    here = randomized(SimilarityModel(of("two"), heads.SkipConnectionHead(6)))
    here.save(tmp_path / "first", format="quaterion")
    (tmp_path / "second").mkdir()
    load_there(tmp_path / "first").save(str(tmp_path / "second"))
    again = SimilarityModel.load(tmp_path / "second", allow=[Letters])
    np.testing.assert_array_equal(again.encode(["ab", "c"]), here.encode(["ab", "c"]))


def test_a_loaded_folder_of_theirs_is_saved_in_our_format_without_pickles_of_heads(tmp_path: Path) -> None:
    there = randomized(quaterion.SimilarityModel({"text": Letters()}, quaterion_heads.GatedHead(3)))
    there.save(str(tmp_path / "theirs"))
    SimilarityModel.load(tmp_path / "theirs", allow=[Letters]).save(tmp_path / "ours")
    assert_equal(SimilarityModel.load(tmp_path / "ours", allow=[Letters]), there)
    assert sorted(file.name for file in (tmp_path / "ours").glob("parts-*/head/*")) == [
        "config.json",
        "weights.safetensors",
    ]


# -- switches


def long_and_short(room: Any) -> dict[str, nn.Module]:
    return {"long": room.SkipConnectionHead(3), "short": room.WideningHead(3, expansion_factor=2)}


def test_their_switches_load_here_if_all_their_encoders_are_allowed(tmp_path: Path) -> None:
    head = quaterion_heads.SwitchHead(options=long_and_short(quaterion_heads), input_embedding_size=3)
    there = randomized(quaterion.SimilarityModel(ByLength({"short": Letters("abc"), "long": Letters("cba")}), head))
    there.save(str(tmp_path))
    here = SimilarityModel.load(tmp_path, allow=[ByLength, Letters])
    assert_equal(here, there)
    assert type(here.encoders["default"]) is ByLength
    with pytest.raises(ServableError, match=r"holds the encoder '.*:Letters', and no code is loaded from files"):
        SimilarityModel.load(tmp_path, allow=[ByLength])


def our_switch(option: Any) -> nn.Module:
    return OurByLength({"short": option, "long": NgramEncoder(3, n_buckets=20, ngrams=(1, 1))})


def test_our_switches_load_there(tmp_path: Path) -> None:
    head = heads.SwitchHead(options={**long_and_short(heads), "short": heads.LinearHead(3, 3)}, dropout=0.5)
    here = randomized(SimilarityModel(our_switch(NgramEncoder(3, n_buckets=50)), head))
    here.save(tmp_path, format="quaterion")
    there = load_there(tmp_path)
    texts = [text or "x" for text in TEXTS]
    assert_equal(here, there, texts)
    assert_equal(SimilarityModel.load(tmp_path), there, texts)


def test_their_heads_inside_our_switch_are_written_as_they_are(tmp_path: Path) -> None:
    options = {"long": Scaling(3, dropout=0.1), "short": quaterion_heads.GatedHead(3)}
    here = randomized(SimilarityModel(ByLength({"short": Letters(), "long": Letters()}), heads.SwitchHead(3, options)))
    here.save(tmp_path, format="quaterion")
    there = load_there(tmp_path)
    assert type(there.head._heads["long"]) is Scaling
    assert_equal(here, there)
    assert_equal(SimilarityModel.load(tmp_path, allow=[ByLength, Letters, Scaling]), there)
    with pytest.raises(ServableError, match=r"holds the head '.*:Scaling', and no code is loaded from files"):
        SimilarityModel.load(tmp_path, allow=[ByLength, Letters])


@pytest.mark.parametrize("inner", ["SequentialHead", "SwitchHead"])
def test_what_their_switch_cannot_load_is_not_written(tmp_path: Path, inner: str) -> None:
    layers = [nn.Linear(3, 3)]
    nested = {
        "SequentialHead": heads.SequentialHead(*layers, output_size=3),
        "SwitchHead": heads.SwitchHead(3, {"short": heads.EmptyHead(3), "long": heads.EmptyHead(3)}),
    }[inner]
    head = heads.SwitchHead(3, {"short": nested, "long": heads.EmptyHead(3)})
    model = SimilarityModel(our_switch(NgramEncoder(3, n_buckets=50)), head)
    with pytest.raises(ServableError, match=rf"option 'short' is .*:{inner}, which it cannot load inside a SwitchHead"):
        model.save(tmp_path, format="quaterion")
    model.save(tmp_path)
