from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain.encoders.token_pooling import POOLINGS


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.booleans())
def test_poolings_see_the_tokens_alone(lengths: list[int], on_the_right: bool) -> None:
    places = torch.arange(7) if on_the_right else torch.arange(7).flip(0)
    mask = (places < torch.tensor(lengths)[:, None]).long()
    tokens = torch.randn(len(lengths), 7, 3, generator=torch.Generator().manual_seed(0))
    rows = [row[row_mask.bool()] for row, row_mask in zip(tokens, mask, strict=True)]
    expected = {
        "mean": torch.stack([row.mean(0) for row in rows]),
        "cls": torch.stack([row[0] for row in rows]),
        "last": torch.stack([row[-1] for row in rows]),
    }
    assert expected.keys() == POOLINGS.keys()
    for name, pool in POOLINGS.items():
        torch.testing.assert_close(pool(tokens, mask), expected[name])


def test_means_are_summed_in_float32() -> None:
    tokens = torch.ones(1, 3000, 1, dtype=torch.float16)
    pooled = POOLINGS["mean"](tokens, torch.ones(1, 3000, dtype=torch.int64))
    assert pooled.dtype is torch.float32
    assert pooled.item() == 1
