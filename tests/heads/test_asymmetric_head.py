from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain import registry
from simtrain.data.sides import DOCUMENT, QUERY
from simtrain.errors import ConfigError, DataError
from simtrain.heads import AsymmetricHead, EmptyHead, GatedHead, LinearHead, SkipConnectionHead, SwitchHead

ADVICE = "^this model has two sides: use encode_query or encode_document; in training, pairs or triplets$"


@given(sides=st.lists(st.sampled_from([QUERY, DOCUMENT]), max_size=6))
def test_each_side_has_its_head(sides: list[int]) -> None:
    query, document = SkipConnectionHead(4), GatedHead(4)
    head, vectors = AsymmetricHead(query=query, document=document), torch.randn(len(sides), 4)
    output = head(vectors, meta={"side": torch.tensor(sides, dtype=torch.int64)})
    assert output.shape == (len(sides), 4)
    for i, side in enumerate(sides):
        alone = (query if side == QUERY else document)(vectors[i : i + 1])[0]
        torch.testing.assert_close(output[i], alone)


def test_a_side_without_a_head_keeps_its_vectors_bit_by_bit() -> None:
    vectors, sides = torch.randn(5, 4), torch.tensor([1, 0, 1, 1, 0])
    head = AsymmetricHead(4, query={"type": "SkipConnectionHead"})
    assert torch.equal(head(vectors, meta={"side": sides})[sides == DOCUMENT], vectors[sides == DOCUMENT])
    with torch.inference_mode():
        assert head(vectors, meta={"side": torch.full((5,), DOCUMENT)}) is vectors
    assert {name.split(".")[0] for name, _ in head.named_parameters()} == {"query"}


def test_training_one_side_leaves_the_other_alone() -> None:
    head = AsymmetricHead(4, query=GatedHead(4), document=GatedHead(4))
    head(torch.randn(3, 4), meta={"side": torch.zeros(3, dtype=torch.int64)}).sum().backward()
    assert bool(head.query.get_parameter("gates").grad.any())  # type: ignore[union-attr]
    assert head.document.get_parameter("gates").grad is not None
    assert not bool(head.document.get_parameter("gates").grad.any())  # type: ignore[union-attr]


@pytest.mark.parametrize("meta", [None, {}, {"encoder": torch.tensor([0])}, [{}], [{"encoder": "text"}]])
def test_without_a_side_it_says_what_to_do(meta: Any) -> None:
    head = AsymmetricHead(4, query=GatedHead(4))
    with pytest.raises(DataError, match=ADVICE):
        head(torch.ones(1, 4), meta=meta)
    with pytest.raises(DataError, match=ADVICE):
        head.transform(torch.ones(1, 4))


def test_unknown_sides_are_errors() -> None:
    head = AsymmetricHead(4)
    with pytest.raises(DataError, match=r"^an item's code is 2; the codes are 0 = 'query', 1 = 'document'$"):
        head(torch.ones(2, 4), meta={"side": torch.tensor([0, 2])})
    with pytest.raises(DataError, match=r"^item 0 has the unknown side 'documnt'; did you mean 'document'"):
        head(torch.ones(1, 4), meta=[{"side": "documnt"}])


def test_sides_come_from_configs_and_go_through_json() -> None:
    config = {"type": "AsymmetricHead", "query": {"type": "LinearHead", "output_size": 2}, "document": None}
    with pytest.raises(ConfigError, match=r"^all must give .* the query side gives 2, the document side gives 4$"):
        registry.heads.build(config, 4)
    head = registry.heads.build({**config, "document": {"type": "LinearHead", "output_size": 2}}, 4)
    assert head.output_size == 2
    settings = json.loads(json.dumps(head.get_config_dict()))
    assert repr(AsymmetricHead(**settings)) == repr(head)


def test_a_side_may_choose_again() -> None:
    options = SwitchHead(options={"image": GatedHead(4), "text": EmptyHead(4)})
    head, vectors = AsymmetricHead(query=options), torch.randn(4, 4)
    meta = {"side": torch.tensor([0, 0, 1, 1]), "encoder": torch.tensor([0, 1, 0, 1])}
    changed = (head(vectors, meta=meta) != vectors).any(dim=1)
    assert changed.tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "^give input_embedding_size; none of the query side, the document side states it"),
        ({"query": {"type": "GatedHead"}}, "^give input_embedding_size"),
        (
            {"query": GatedHead(4), "document": GatedHead(5)},
            "^all must take the same vectors, but the document side takes 5 dimensions instead of 4",
        ),
        (
            {"input_embedding_size": 4, "query": {"type": "LinearHead", "output": 4}},
            "^the query side: head 'LinearHead' has no setting 'output'",
        ),
        ({"query": LinearHead(4, 3)}, "but the query side gives 3, the document side gives 4$"),
        ({"input_embedding_size": 0}, "^input_embedding_size must be a positive integer, got 0"),
    ],
)
def test_sides_that_do_not_fit_are_errors(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AsymmetricHead(**words)


def test_sides_that_share_weights_are_not_saved() -> None:
    one = GatedHead(4)
    with pytest.raises(ConfigError, match=r"^the query side and the document side share the weight 'gates'"):
        AsymmetricHead(query=one, document=one).get_config_dict()
