"""The base class of all losses."""

from __future__ import annotations

from typing import Any

from torch import nn


class SimilarityLoss(nn.Module):
    """Base of all losses. Derive from :class:`GroupLoss` or :class:`PairwiseLoss`, which fix how a loss is called.

    Example:
        >>> SimilarityLoss().get_config_dict()
        {}
    """

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values: ``type(loss)(**loss.get_config_dict())`` is an equal loss."""
        return {}

    def extra_repr(self) -> str:
        """Settings, as ``print(loss)`` shows them."""
        return ", ".join(f"{name}={value!r}" for name, value in self.get_config_dict().items())
