"""A model that follows the trained one slowly, to fill a memory with embeddings that change slowly, too."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from simtrain.models import SimilarityModel
from simtrain.models.joined_encoders import is_frozen


class MomentumEncoder(nn.Module):
    """Moving averages of the head and of the trainable encoders; frozen and cached ones are the model's own.

    Before the first average it takes the weights as they are.

    Args:
        model: The model that is trained.
        momentum: Share of the old average in the new one, at least 0 and below 1.

    Reference:
        He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
        https://arxiv.org/abs/1911.05722
    """

    def __init__(self, model: SimilarityModel, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.head = copy.deepcopy(model.head)
        trained = {name: encoder for name, encoder in model.encoders.items() if not is_frozen(encoder)}
        self.encoders = nn.ModuleDict({name: copy.deepcopy(encoder) for name, encoder in trained.items()})
        self.requires_grad_(False)
        self._has_begun = False
        # In a tuple, so that it is no part of this module: it holds the model's own frozen encoders.
        self._joined: tuple[Any, ...] = (None, None)

    @torch.no_grad()
    def update(self, model: SimilarityModel) -> None:
        """Move the averages towards the weights of a model."""
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for average, current in self._pairs(model):
            averages.extend(average.parameters())
            weights.extend(weight.detach().to(own) for own, weight in zip(
                average.parameters(), current.parameters(), strict=True))  # fmt: skip
        if averages:
            torch._foreach_lerp_(averages, weights, 1.0 - self.momentum if self._has_begun else 1.0)
        if not self._has_begun:
            for average, current in self._pairs(model):
                for own, buffer in zip(average.buffers(), current.buffers(), strict=True):
                    own.copy_(buffer)
        self._has_begun = True

    @torch.no_grad()
    def forward(self, features: Mapping[str, Any], model: SimilarityModel) -> Tensor:
        """Embed a collated batch.

        Args:
            features: What ``model`` takes.
            model: The model as it is called in training: with its caches, where it has some.

        Returns:
            Shape ``(batch, dim)``, without graph.
        """
        known, joined = self._joined
        if known is not model:
            joined = SimilarityModel({**dict(model.encoders.items()), **dict(self.encoders.items())}, self.head)
            self._joined = (model, joined)
        # As the parts are: a model that reads from caches is not told of every change of mode.
        for average, current in self._pairs(model):
            average.train(current.training)
        embeddings: Tensor = joined(features)
        return embeddings

    def get_extra_state(self) -> dict[str, bool]:
        """Whether there is an average, for checkpoints."""
        return {"has_begun": self._has_begun}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        """Go on from a checkpoint."""
        self._has_begun = state["has_begun"]

    def __deepcopy__(self, memo: dict[int, Any]) -> MomentumEncoder:
        twin = self.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__ = {
            name: (None, None) if name == "_joined" else copy.deepcopy(value, memo)
            for name, value in self.__dict__.items()
        }
        return twin

    def _pairs(self, model: SimilarityModel) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.head, model.head), *((own, model.encoders[name]) for name, own in self.encoders.items())]
