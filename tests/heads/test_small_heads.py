"""The heads that are one formula each, against that formula in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain.errors import ConfigError
from simtrain.heads import GatedHead, LinearHead, SoftmaxEmbeddingsHead, WideningHead

SIZES = st.integers(1, 8)


def vectors_for(size: int) -> torch.Tensor:
    return torch.randn(4, size, dtype=torch.float64)


@given(size=SIZES, output=SIZES, bias=st.booleans())
def test_linear_head_is_a_linear_map(size: int, output: int, bias: bool) -> None:
    head, vectors = LinearHead(size, output, bias=bias).double(), vectors_for(size)
    state = head.state_dict()
    expected = vectors @ state["linear.weight"].T + (state["linear.bias"] if bias else 0.0)
    torch.testing.assert_close(head(vectors), expected)
    assert set(state) == ({"linear.weight", "linear.bias"} if bias else {"linear.weight"})
    assert head.get_config_dict() == {
        "input_embedding_size": size,
        "dropout": 0.0,
        "output_size": output,
        "bias": bias,
    }


@given(size=SIZES)
def test_gated_head_weighs_each_dimension(size: int) -> None:
    head, vectors = GatedHead(size).double(), vectors_for(size)
    torch.nn.init.normal_(head.gates)
    gates = head.gates.detach()
    weights = (gates.exp() - (-gates).exp()) / (gates.exp() + (-gates).exp())
    torch.testing.assert_close(head(vectors), vectors * weights)


def test_an_untrained_gated_head_keeps_directions() -> None:
    vectors = torch.randn(5, 8)
    cosines = torch.cosine_similarity(GatedHead(8)(vectors), vectors)
    torch.testing.assert_close(cosines, torch.ones(5))


@given(size=SIZES, factor=st.sampled_from([1, 2, 1.5, 4.0, 0.99, 2.3]))
def test_widening_head_goes_wide_and_back(size: int, factor: float) -> None:
    if int(size * factor) == 0:
        with pytest.raises(ConfigError, match=rf"^expansion_factor {factor} leaves none of {size} dimensions"):
            WideningHead(size, factor)
        return
    head, vectors = WideningHead(size, expansion_factor=factor, activation_fn="tanh").double(), vectors_for(size)
    state = head.state_dict()
    assert state["_stack.0.weight"].shape == (int(size * factor), size)
    hidden = torch.tanh(vectors @ state["_stack.0.weight"].T + state["_stack.0.bias"])
    torch.testing.assert_close(head(vectors), hidden @ state["_stack.2.weight"].T + state["_stack.2.bias"])
    assert head.output_size == size


@given(size=SIZES, groups=SIZES, per_group=SIZES)
def test_softmax_embeddings_head_gives_a_distribution_for_each_group(size: int, groups: int, per_group: int) -> None:
    head = SoftmaxEmbeddingsHead(size, output_groups=groups, output_size_per_group=per_group).double()
    vectors, state = vectors_for(size), head.state_dict()
    projected = vectors @ state["projection_layer.weight"].T + state["projection_layer.bias"]
    parts = [part.exp() / part.exp().sum(dim=1, keepdim=True) for part in projected.split(per_group, dim=1)]
    torch.testing.assert_close(head(vectors), torch.cat(parts, dim=1))


def test_softmax_embeddings_head_stays_finite_far_out() -> None:
    output = SoftmaxEmbeddingsHead(4, 2, 3)(torch.full((1, 4), 1e30))
    assert bool(output.isfinite().all())


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("head", "words", "message"),
    [
        (LinearHead, {"output_size": 0}, "^output_size must be a positive integer, got 0"),
        (LinearHead, {"output_size": 2.5}, "^output_size must be a positive integer, got 2.5"),
        (WideningHead, {"expansion_factor": 0}, "^expansion_factor must be a positive number, got 0"),
        (WideningHead, {"expansion_factor": -2.0}, "^expansion_factor must be a positive number, got -2.0"),
        (WideningHead, {"expansion_factor": float("nan")}, "^expansion_factor must be a positive number, got nan"),
        (WideningHead, {"expansion_factor": float("inf")}, "^expansion_factor must be a positive number, got inf"),
        (WideningHead, {"expansion_factor": "2"}, "^expansion_factor must be a positive number, got '2'"),
        (WideningHead, {"activation_fn": "rellu"}, "^unknown activation_fn 'rellu'; did you mean 'relu'"),
        (
            SoftmaxEmbeddingsHead,
            {"output_groups": 0, "output_size_per_group": 2},
            "^output_groups must be a positive integer, got 0",
        ),
        (
            SoftmaxEmbeddingsHead,
            {"output_groups": 2, "output_size_per_group": True},
            "^output_size_per_group must be a positive integer, got True",
        ),
    ],
)
def test_arguments_out_of_range_are_errors(head: Any, words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        head(4, **words)
