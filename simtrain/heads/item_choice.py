"""Several heads for one batch: which item goes through which, and back into its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from simtrain.errors import DataError, nearest


def item_codes(meta: Any, key: str, names: Sequence[str], count: int, advice: str) -> Int64[Tensor, " batch"]:
    """Read from ``meta`` which of ``names`` each item has chosen.

    Args:
        meta: ``{key: whole numbers, shape (batch,)}``, positions in ``names``; or a list with ``{key: name}`` for each
            item, as quaterion-models has it.
        key: Where the choice stands.
        names: What can be chosen.
        count: Number of items in the batch.
        advice: The error's sentence where ``meta`` says nothing of ``key``.

    Returns:
        Positions in ``names``, shape ``(batch,)``.

    Raises:
        DataError: ``meta`` lacks the choice, holds an unknown name, or has not one choice an item.

    Example:
        >>> item_codes([{"encoder": "text"}, {"encoder": "image"}], "encoder", ["image", "text"], 2, "")
        tensor([1, 0])
    """
    if isinstance(meta, Mapping) and isinstance(meta.get(key), Tensor):
        codes: Tensor = meta[key]
    elif _is_listed(meta, key):
        codes = torch.tensor([_position(item[key], names, key, i) for i, item in enumerate(meta)], dtype=torch.int64)
    else:
        raise DataError(advice)
    if codes.shape != (count,) or codes.dtype == torch.bool or codes.is_floating_point() or codes.is_complex():
        raise DataError(
            f"meta[{key!r}] must hold one whole number for each of {count} items, got {codes.dtype} of shape "
            f"{tuple(codes.shape)}"
        )
    return codes.long()


def transform_chosen(
    heads: Mapping[str, nn.Module],
    codes: Int64[Tensor, " batch"],
    vectors: Float[Tensor, "batch input"],
    meta: Any = None,
) -> Float[Tensor, "batch output"]:
    """Send each row of ``vectors`` through the head that its code names.

    Every head's parameters take part in the graph, with zero gradients where no item has chosen the head: a step of
    several processes updates the same parameters as one of a single process, whoever saw which item.

    Args:
        heads: In the order of the codes; all give the same number of dimensions.
        codes: Positions in ``heads``, on any device.
        vectors: The batch.
        meta: What is known of the items; each head is given that of its own.

    Returns:
        A row for each row of ``vectors``, in their order.

    Raises:
        DataError: A code stands for no head.
    """
    # No index may stay behind on another device than the vectors.
    codes = codes.to(vectors.device, non_blocking=True)
    counts = _counts(codes, list(heads))
    used = [name for name, n in counts.items() if n] or list(heads)[:1]
    embeddings = _through(heads, codes, counts, used, vectors, meta)
    return embeddings + _nothing(heads, used) if torch.is_grad_enabled() else embeddings


def _through(
    heads: Mapping[str, nn.Module], codes: Tensor, counts: dict[str, int], used: list[str], vectors: Tensor, meta: Any
) -> Tensor:
    if len(used) == 1:
        whole: Tensor = heads[used[0]](vectors, meta=meta)
        return whole
    order = codes.argsort(stable=True)
    sizes = [counts[name] for name in used]
    parts = zip(used, torch.split(vectors.index_select(0, order), sizes), torch.split(order, sizes), strict=True)
    embedded = [heads[name](part, meta=_rows_of(meta, rows)) for name, part, rows in parts]
    return torch.cat(embedded).index_select(0, order.argsort())


def _counts(codes: Tensor, names: list[str]) -> dict[str, int]:
    # One list, so that a GPU is waited for only once.
    chosen = codes.unsqueeze(1) == torch.arange(len(names), device=codes.device)
    counts = chosen.sum(dim=0).tolist()
    if sum(counts) != len(codes):
        unknown = codes[~chosen.any(dim=1)][0].item()
        raise DataError(f"an item's code is {unknown}; the codes are {legend(names)}")
    return dict(zip(names, counts, strict=True))


def legend(names: Sequence[str]) -> str:
    """Word what each code stands for.

    Example:
        >>> legend(["image", "text"])
        "0 = 'image', 1 = 'text'"
    """
    return ", ".join(f"{code} = {name!r}" for code, name in enumerate(names))


def _nothing(heads: Mapping[str, nn.Module], used: list[str]) -> Tensor | float:
    # The sum of no elements is 0 even where the weights are not finite, and its gradient is zeros.
    idle = [parameter for name, head in heads.items() if name not in used for parameter in head.parameters()]
    return sum((parameter.flatten()[:0].sum() for parameter in idle), 0.0)


def _rows_of(meta: Any, rows: Tensor) -> Any:
    if isinstance(meta, Mapping):
        return {key: v.index_select(0, rows.to(v.device)) if isinstance(v, Tensor) else v for key, v in meta.items()}
    return None if meta is None else [meta[row] for row in rows.tolist()]


def _is_listed(meta: Any, key: str) -> bool:
    is_list = isinstance(meta, Sequence) and not isinstance(meta, str)
    return is_list and all(isinstance(item, Mapping) and key in item for item in meta)


def _position(name: Any, names: Sequence[str], key: str, item: int) -> int:
    if name not in names:
        raise DataError(f"item {item} has the unknown {key} {name!r}; {nearest(str(name), names)}")
    return list(names).index(name)
