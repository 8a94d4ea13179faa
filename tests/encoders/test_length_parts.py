from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from simtrain.encoders.length_parts import ROWS, embed_by_length, part_sizes


def batch_of(lengths: list[int], side: str = "right") -> dict[str, Any]:
    """Tokens are different numbers; padding is -1."""
    width = max(lengths)
    places = torch.arange(width) if side == "right" else torch.arange(width).flip(0)
    mask = (places < torch.tensor(lengths)[:, None]).long()
    tokens = torch.arange(len(lengths) * width).view(-1, width)
    return {"input_ids": torch.where(mask.bool(), tokens, -1), "attention_mask": mask, "kind": "text"}


def embed(batch: dict[str, Any]) -> Tensor:
    assert batch["kind"] == "text"
    tokens, mask = batch["input_ids"].double(), batch["attention_mask"]
    return torch.stack([(tokens * mask).sum(1), (tokens.square() * mask).sum(1)], dim=1)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=150), st.sampled_from(["left", "right"]))
def test_rows_keep_their_order_and_their_tokens(lengths: list[int], side: str) -> None:
    batch = batch_of(lengths, side)
    assert torch.equal(embed_by_length(embed, batch), embed(batch))


def test_parts_have_no_padding_that_they_do_not_need() -> None:
    seen: list[tuple[int, ...]] = []

    def watch(part: dict[str, Any]) -> Tensor:
        seen.append(tuple(part["input_ids"].shape))
        return embed(part)

    lengths = [5, 50] * ROWS
    for side in ("left", "right"):
        seen.clear()
        embed_by_length(watch, batch_of(lengths, side))
        assert seen == [(ROWS, 5), (ROWS, 50)]


@given(st.lists(st.integers(1, 512), min_size=2 * ROWS, max_size=400))
def test_sizes_cover_all_texts_in_parts_worth_running(lengths: list[int]) -> None:
    lengths = sorted(lengths)
    sizes = part_sizes(lengths, max(lengths))
    assert sum(sizes) == len(lengths)
    assert len(sizes) == 1 or min(sizes) >= ROWS
    ends = torch.tensor(sizes).cumsum(0).tolist()
    tokens = sum(size * lengths[end - 1] for size, end in zip(sizes, ends, strict=True))
    assert tokens <= len(lengths) * max(lengths)


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch.pop("attention_mask"),
        lambda batch: batch.update(offsets=torch.arange(3)),
        lambda batch: batch.update(pixels=torch.zeros(64, 3, 8, 8)),
    ],
    ids=["no mask", "bags of tokens", "images"],
)
def test_batches_of_another_form_run_whole(change: Any) -> None:
    batch = batch_of([3, 30] * ROWS)
    change(batch)
    calls = []
    embed_by_length(lambda part: calls.append(part) or torch.zeros(1, 1), batch)  # type: ignore[func-returns-value]
    assert len(calls) == 1
    assert calls[0].keys() == batch.keys()
    assert calls[0] is not batch


def test_gradients_come_back_in_order() -> None:
    batch = batch_of([2, 40] * ROWS)
    weights = torch.randn(batch["input_ids"].numel(), 3, requires_grad=True)

    def look_up(part: dict[str, Any]) -> Tensor:
        return (weights[part["input_ids"].clamp(min=0)] * part["attention_mask"][..., None]).sum(1)

    scale = torch.arange(2.0 * ROWS)[:, None]
    (embed_by_length(look_up, batch) * scale).sum().backward()
    in_parts, weights.grad = weights.grad, None
    (look_up(batch) * scale).sum().backward()
    torch.testing.assert_close(in_parts, weights.grad)
