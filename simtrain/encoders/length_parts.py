"""Running a batch of texts in parts of like length: in a batch padded to its longest text, most tokens are padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

#: Texts that a part has at least; fewer would leave the processor idle.
ROWS = 32
#: A part goes on while its longest text is at most this many times as long as its shortest.
SPREAD = 1.2
#: Parts are made only if they leave at most this share of the tokens.
WORTHWHILE = 0.9

Embed = Callable[[dict[str, Any]], Tensor]


def embed_by_length(embed: Embed, batch: Mapping[str, Any]) -> Float[Tensor, "batch dim"]:
    """Embed tokenized texts, those of like length together, each part without the padding that it does not need.

    Args:
        embed: From a tokenized batch to its embeddings, shape ``(batch, dim)``.
        batch: Token tensors of shape ``(batch, tokens)``, ``attention_mask`` (1 for tokens, 0 for padding, on either
            side) among them. A batch of another form is embedded as it is.

    Returns:
        Embeddings in the order of the batch.

    Example:
        >>> mask = (torch.arange(9) < torch.tensor([[9]] * 32 + [[2]] * 32)).long()
        >>> def embed(part):
        ...     print(tuple(part["attention_mask"].shape))
        ...     return part["attention_mask"].sum(1, keepdim=True).float()
        >>> embed_by_length(embed, {"attention_mask": mask}).shape
        (32, 2)
        (32, 9)
        torch.Size([64, 1])
    """
    mask = batch.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) < 2 * ROWS or not _is_of_tokens(batch, mask.shape):
        return embed(dict(batch))
    counts = mask.sum(1)
    order = counts.argsort(stable=True)
    sizes = part_sizes(counts[order].tolist(), mask.shape[1])
    if len(sizes) == 1:
        return embed(dict(batch))
    parts = [embed(_rows(batch, rows)) for rows in torch.split(order, sizes)]
    return torch.cat(parts)[order.argsort()]


def part_sizes(lengths: Sequence[int], width: int) -> list[int]:
    """Cut texts, sorted by length, into parts.

    Args:
        lengths: Tokens of each text, ascending.
        width: Tokens that each has with its padding.

    Returns:
        Number of texts of each part; a single one where parts would not spare a tenth of the tokens.

    Example:
        >>> part_sizes([3] * 40 + [50] * 40, width=50)
        [40, 40]
        >>> part_sizes([48] * 40 + [50] * 40, width=50)
        [80]
    """
    starts = [0]
    for i, length in enumerate(lengths):
        has_grown = length > SPREAD * lengths[starts[-1]]
        if has_grown and i - starts[-1] >= ROWS and len(lengths) - i >= ROWS:
            starts.append(i)
    ends = [*starts[1:], len(lengths)]
    tokens = sum((end - start) * lengths[end - 1] for start, end in zip(starts, ends, strict=True))
    if tokens > WORTHWHILE * len(lengths) * width:
        return [len(lengths)]
    return [end - start for start, end in zip(starts, ends, strict=True)]


def _is_of_tokens(batch: Mapping[str, Any], shape: torch.Size) -> bool:
    return all(value.shape[:2] == shape for value in batch.values() if isinstance(value, Tensor))


def _rows(batch: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    used = batch["attention_mask"][rows].any(0).nonzero()
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
    return {key: value[rows, first : last + 1] if isinstance(value, Tensor) else value for key, value in batch.items()}
