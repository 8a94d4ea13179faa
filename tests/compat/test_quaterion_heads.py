"""Every head against the real quaterion-models: weights go both ways, and embeddings are equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from simtrain import heads
from simtrain.errors import ConfigError, ServableError
from simtrain.heads import EncoderHead
from simtrain.heads.nested_heads import describe_head

quaterion_heads: Any = pytest.importorskip("quaterion_models.heads")

# LinearHead and AsymmetricHead are this project's own; SequentialHead and SwitchHead have tests of their own below.
SIMPLE: list[tuple[str, dict[str, Any]]] = [
    ("EmptyHead", {}),
    ("GatedHead", {}),
    ("GatedHead", {"dropout": 0.3}),
    ("SkipConnectionHead", {"n_layers": 2}),
    ("SoftmaxEmbeddingsHead", {"output_groups": 3, "output_size_per_group": 4}),
    ("SoftmaxEmbeddingsHead", {"output_groups": 1, "output_size_per_group": 5, "dropout": 0.1}),
    ("StackedProjectionHead", {"output_sizes": [7, 2], "activation_fn": "gelu"}),
    ("WideningHead", {}),
    ("WideningHead", {"expansion_factor": 1.7, "activation_fn": "tanh", "dropout": 0.1}),
    ("WideningHead", {"expansion_factor": 0.5}),
]
THEIRS = {name for name in dir(quaterion_heads) if name.endswith("Head") and name != "EncoderHead"}


def randomized(head: nn.Module, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return head.eval()


def assert_equal_both_ways(own: nn.Module, theirs: nn.Module, **forward: Any) -> None:
    vectors = torch.randn(9, 6)
    for source, target in ((own, theirs), (theirs, own)):
        randomized(source, seed=1)
        randomized(target, seed=2)
        if source.state_dict():
            assert not torch.allclose(own(vectors, **forward), theirs(vectors, **forward), atol=1e-3)
        target.load_state_dict(source.state_dict())
        torch.testing.assert_close(own(vectors, **forward), theirs(vectors, **forward), atol=1e-6, rtol=0)
    assert own.output_size == theirs.output_size


def test_every_head_of_theirs_is_tried() -> None:
    assert len(THEIRS) == 8
    assert {name for name, _ in SIMPLE} | {"SequentialHead", "SwitchHead"} == THEIRS
    assert set(heads.__all__) >= THEIRS


@pytest.mark.parametrize(("name", "words"), SIMPLE)
def test_weights_go_both_ways_with_the_same_keywords(name: str, words: dict[str, Any]) -> None:
    own = getattr(heads, name)(input_embedding_size=6, **words)
    theirs = getattr(quaterion_heads, name)(input_embedding_size=6, **words)
    assert_equal_both_ways(own, theirs)


@pytest.mark.parametrize(("name", "words"), SIMPLE)
def test_our_config_builds_their_head(name: str, words: dict[str, Any]) -> None:
    own = getattr(heads, name)(6, **words)
    assert_equal_both_ways(own, getattr(quaterion_heads, name)(**own.get_config_dict()))


@pytest.mark.parametrize(("name", "words"), [given for given in SIMPLE if given[0] in ("GatedHead", "WideningHead")])
def test_untrained_weights_start_alike(name: str, words: dict[str, Any]) -> None:
    own, theirs = getattr(heads, name)(6, **words).state_dict(), getattr(quaterion_heads, name)(6, **words).state_dict()
    assert {key: weight.shape for key, weight in own.items()} == {key: weight.shape for key, weight in theirs.items()}
    if "gates" in own:
        assert torch.equal(own["gates"], theirs["gates"])


def layers() -> list[nn.Module]:
    return [nn.Linear(6, 5), nn.GELU(), nn.LayerNorm(5), nn.Dropout(0.3), nn.Linear(5, 4)]


def test_sequential_head() -> None:
    own = heads.SequentialHead(*layers(), output_size=4)
    assert_equal_both_ways(own, quaterion_heads.SequentialHead(*layers(), output_size=4))


def test_sequential_head_with_batch_norm_takes_its_statistics_along() -> None:
    own = heads.SequentialHead(nn.BatchNorm1d(6), output_size=6)
    theirs = quaterion_heads.SequentialHead(nn.BatchNorm1d(6), output_size=6)
    theirs.train()(torch.randn(20, 6) * 3 + 1)
    own.load_state_dict(theirs.state_dict())
    vectors = torch.randn(4, 6)
    torch.testing.assert_close(own.eval()(vectors), theirs.eval()(vectors), atol=1e-6, rtol=0)


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("SkipConnectionHead", {"dropout": 0.2}),
    "image": ("WideningHead", {}),
    "sound": ("GatedHead", {}),
}


def options_of(room: Any) -> dict[str, nn.Module]:
    return {key: getattr(room, name)(6, **words) for key, (name, words) in OPTIONS.items()}


@pytest.mark.parametrize(
    "kinds",
    [["text", "image", "sound"] * 3, ["sound"] * 9, ["image", "text"] * 4 + ["image"]],
    ids=["all", "one", "two"],
)
def test_switch_head(kinds: list[str]) -> None:
    own = heads.SwitchHead(options=options_of(heads), input_embedding_size=6)
    theirs = quaterion_heads.SwitchHead(options=options_of(quaterion_heads), input_embedding_size=6)
    meta = [{"encoder": kind} for kind in kinds]
    assert_equal_both_ways(own, theirs, meta=meta)
    vectors, codes = torch.randn(9, 6), torch.tensor([sorted(OPTIONS).index(kind) for kind in kinds])
    torch.testing.assert_close(own(vectors, meta={"encoder": codes}), theirs(vectors, meta=meta), atol=1e-6, rtol=0)


@pytest.mark.parametrize("outer", ["SwitchHead", "SequentialHead", "AsymmetricHead"])
def test_their_heads_work_inside_ours(outer: str) -> None:
    theirs, vectors = quaterion_heads.SkipConnectionHead(6).eval(), torch.randn(2, 6)
    built: dict[str, EncoderHead] = {
        "SwitchHead": heads.SwitchHead(options={"a": theirs}),
        "SequentialHead": heads.SequentialHead(theirs, output_size=6),
        "AsymmetricHead": heads.AsymmetricHead(query=theirs),
    }
    meta = {"encoder": torch.zeros(2, dtype=torch.int64), "side": torch.zeros(2, dtype=torch.int64)}
    torch.testing.assert_close(built[outer](vectors, meta=meta), theirs(vectors), atol=1e-6, rtol=0)


def test_their_heads_inside_ours_are_loaded_where_they_are_allowed(tmp_path: Path) -> None:
    head = heads.SwitchHead(options={"a": quaterion_heads.GatedHead(3)})
    assert describe_head(head.options["a"], "")["type"] == "quaterion_models.heads.gated_head:GatedHead"
    head.save(tmp_path)
    with pytest.raises(
        ServableError, match=r"option 'a': unknown head type 'quaterion_models\.heads\.gated_head:GatedHea"
    ):
        heads.SwitchHead.load(tmp_path)  # not as the head of that name here
    loaded = heads.SwitchHead.load(tmp_path, allow=[quaterion_heads.GatedHead])
    assert type(loaded.options["a"]) is quaterion_heads.GatedHead
    with pytest.raises(ConfigError, match=r"^layer 0 is a GatedHead, which"):
        heads.SequentialHead(quaterion_heads.GatedHead(3), output_size=3).get_config_dict()
