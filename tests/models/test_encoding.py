from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor

from simtrain.encoders import ItemError
from simtrain.errors import DataError
from simtrain.models.encoding import check_finite, cosine_matrix, embed_items


def embed(items: Sequence[int]) -> Tensor:
    if 13 in items:
        raise ItemError(list(items).index(13), "brings bad luck")
    return torch.tensor([[float(item), -float(item)] for item in items])


@given(st.lists(st.tuples(st.integers(20, 99), st.integers(0, 5)), max_size=30), st.integers(1, 9))
@settings(deadline=None)
def test_order_is_kept_whatever_lengths_and_batches(items: list[tuple[int, int]], batch_size: int) -> None:
    values, lengths = [value for value, _ in items], [length for _, length in items]
    embeddings = embed_items(values, embed, lengths, dim=2, batch_size=batch_size)
    assert embeddings[:, 0].tolist() == values
    assert embeddings.shape == (len(items), 2)


def test_batches_hold_items_of_similar_length_long_ones_first() -> None:
    seen: list[list[int]] = []

    def recording(items: Sequence[int]) -> Tensor:
        seen.append(list(items))
        return embed(items)

    embed_items([1, 9, 2, 8], recording, lengths=[1, 9, 2, 8], dim=2, batch_size=2)
    assert seen == [[9, 8], [2, 1]]


def test_errors_count_in_the_users_data_not_in_the_batch() -> None:
    with pytest.raises(DataError, match=r"^item 2 brings bad luck$"):
        embed_items([20, 21, 13, 22], embed, lengths=[4, 3, 2, 1], dim=2, batch_size=2)


def test_result_may_take_part_in_training() -> None:
    embeddings = embed_items([20], embed, [0], dim=2, batch_size=1)
    weight = torch.ones(2, requires_grad=True)
    (embeddings * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named(value: float) -> None:
    embeddings = torch.zeros(4, 2)
    embeddings[2, 1] = embeddings[3, 0] = value
    with pytest.raises(DataError, match=r"^item 2 has an embedding with NaN or infinite values \(2 of 4 items do\)"):
        check_finite(embeddings)
    check_finite(embeddings[:2])


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5))
@settings(deadline=None)
def test_cosine_matrix_equals_scikit_learn(n: int, m: int, dim: int) -> None:
    a, b = torch.randn(n, dim).double(), torch.randn(m, dim).double()
    torch.testing.assert_close(cosine_matrix(a, b).numpy(), cosine_similarity(a.numpy(), b.numpy()))
    half = cosine_matrix(a.half(), b.bfloat16())
    assert half.dtype is torch.float32
    assert float((half - cosine_matrix(a, b)).abs().max()) < 0.05
    assert cosine_matrix(torch.zeros(1, dim), b.float()).tolist() == [[0.0] * m]
