"""The miner inside of a loss, from an object or a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from simtrain import registry
from simtrain.errors import ConfigError
from simtrain.losses.miners import Miner

GivenMiner = nn.Module | Mapping[str, Any] | None


def nested_miner(given: Any, owner: str) -> nn.Module | None:
    """A miner from what a loss's constructor was given.

    Args:
        given: A :class:`Miner`, one of pytorch-metric-learning's, the config of either, or None.
        owner: The loss, for messages.

    Raises:
        ConfigError: It is none of these, or the config is wrong.

    Example:
        >>> nested_miner({"type": "MultiSimilarityMiner", "epsilon": 0.2}, "TripletLoss")
        MultiSimilarityMiner(epsilon=0.2, distance='cosine')
    """
    if given is None or isinstance(given, nn.Module):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{owner}: miner must be a miner or its config {{'type': NAME, ...}}, got {given!r}")
    if str(given.get("type")).startswith("pml."):
        from simtrain.losses.pml_parts import build_pml

        miner = build_pml(given, "miners")
        miner.simtrain_config = dict(given)  # type: ignore[assignment]
        return miner
    built: nn.Module = registry.miners.build(given)
    return built


def describe_miner(miner: nn.Module | None) -> dict[str, Any] | None:
    """The config from which :func:`nested_miner` builds an equal miner.

    Raises:
        ConfigError: The miner is pytorch-metric-learning's and was passed as an object, which does not know its
            settings.
    """
    if miner is None:
        return None
    if isinstance(miner, Miner):
        return {"type": type(miner).__name__, **miner.get_config_dict()}
    config: Any = getattr(miner, "simtrain_config", None)
    if config is None:
        raise ConfigError(
            f"the settings of a {type(miner).__name__} that was passed as an object are not known; pass its config, "
            f"{{'type': 'pml.{type(miner).__name__}', ...}}, where the loss is to be saved"
        )
    return dict(config)
