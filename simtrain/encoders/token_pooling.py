"""From the vectors of a text's tokens to one vector of the text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def mean_pooling(
    tokens: Float[Tensor, "batch tokens dim"], mask: Int[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """Mean of the tokens that are no padding, summed in float32.

    Example:
        >>> mean_pooling(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]]))
        tensor([[2.]])
    """
    weights = mask.unsqueeze(2).float()
    # A sum of a hundred tokens in half precision would keep three digits. A text always has a token.
    return (tokens.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


def cls_pooling(
    tokens: Float[Tensor, "batch tokens dim"], mask: Int[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """The first token that is no padding.

    Example:
        >>> cls_pooling(torch.tensor([[[9.0], [1.0], [3.0]]]), torch.tensor([[0, 1, 1]]))
        tensor([[1.]])
    """
    return _at(tokens, mask.argmax(1))


def last_token_pooling(
    tokens: Float[Tensor, "batch tokens dim"], mask: Int[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """The last token that is no padding, whichever side the padding is on.

    Example:
        >>> last_token_pooling(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]]))
        tensor([[3.]])
    """
    return _at(tokens, mask.shape[1] - 1 - mask.flip(1).argmax(1))


def _at(tokens: Tensor, positions: Tensor) -> Tensor:
    return tokens[torch.arange(len(tokens), device=tokens.device), positions].float()


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean_pooling,
    "cls": cls_pooling,
    "last": last_token_pooling,
}
