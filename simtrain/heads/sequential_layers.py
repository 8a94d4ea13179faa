"""The layers of a :class:`SequentialHead`: their configs and how many dimensions they take and give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from simtrain.encoders.positive_size import positive_size
from simtrain.encoders.saved_classes import how_to_allow, known_class
from simtrain.errors import ConfigError, nearest
from simtrain.heads.encoder_head import EncoderHead
from simtrain.heads.nested_heads import describe_head, is_head, nested_head, stated_size
from simtrain.registry import heads


@dataclass(frozen=True)
class LayerKind:
    """A layer of ``torch.nn`` that configs may name.

    Attributes:
        words: Constructor arguments, each kept by the layer under the same name.
        takes: The argument that states how many dimensions come in.
        gives: The one that states how many go out. Default: as many as come in.
    """

    words: tuple[str, ...] = ()
    takes: str | None = None
    gives: str | None = None


# A name from a file must not reach just any class.
LAYERS: dict[str, LayerKind] = {
    "AlphaDropout": LayerKind(("p", "inplace")),
    "BatchNorm1d": LayerKind(
        ("num_features", "eps", "momentum", "affine", "track_running_stats"), takes="num_features"
    ),
    "CELU": LayerKind(("alpha", "inplace")),
    "Dropout": LayerKind(("p", "inplace")),
    "ELU": LayerKind(("alpha", "inplace")),
    "GELU": LayerKind(("approximate",)),
    "GroupNorm": LayerKind(("num_groups", "num_channels", "eps", "affine"), takes="num_channels"),
    "Hardsigmoid": LayerKind(("inplace",)),
    "Hardswish": LayerKind(("inplace",)),
    "Hardtanh": LayerKind(("min_val", "max_val", "inplace")),
    "Identity": LayerKind(),
    "LayerNorm": LayerKind(("normalized_shape", "eps", "elementwise_affine", "bias"), takes="normalized_shape"),
    "LeakyReLU": LayerKind(("negative_slope", "inplace")),
    "Linear": LayerKind(("in_features", "out_features", "bias"), takes="in_features", gives="out_features"),
    "LogSigmoid": LayerKind(),
    "LogSoftmax": LayerKind(("dim",)),
    "Mish": LayerKind(("inplace",)),
    "PReLU": LayerKind(("num_parameters",)),
    "RMSNorm": LayerKind(("normalized_shape", "eps", "elementwise_affine"), takes="normalized_shape"),
    "ReLU": LayerKind(("inplace",)),
    "ReLU6": LayerKind(("inplace",)),
    "SELU": LayerKind(("inplace",)),
    "SiLU": LayerKind(("inplace",)),
    "Sigmoid": LayerKind(),
    "Softmax": LayerKind(("dim",)),
    "Softplus": LayerKind(("beta", "threshold")),
    "Softsign": LayerKind(),
    "Tanh": LayerKind(),
}


def sequential_layer(given: Any, width: int | None, place: str) -> nn.Module:
    """A layer as it is, or built from its config.

    Args:
        given: Any module, or ``{"type": a name of LAYERS or of a registered head, **constructor arguments}``.
        width: Number of dimensions that come in, for a config that does not say; None: nobody knows.
        place: Where the layer stands, for messages.

    Raises:
        ConfigError: ``given`` is neither, its config is wrong, or it does not take ``width`` dimensions.

    Example:
        >>> sequential_layer({"type": "Linear", "out_features": 2}, 8, "layer 0")
        Linear(in_features=8, out_features=2, bias=True)
    """
    layer = given if isinstance(given, nn.Module) else _from_config(given, width, place)
    takes = width_taken(layer)
    if width is not None and takes is not None and takes != width:
        raise ConfigError(f"{place}, {type(layer).__name__}, takes {takes} dimensions, but {width} come in")
    return layer


def width_taken(layer: nn.Module) -> int | None:
    """Number of dimensions that ``layer`` asks for; None if it takes any or does not say."""
    kind = _kind(layer)
    if kind is None or kind.takes is None:
        size = stated_size(layer) if is_head(layer) else None
        return None if size is None else int(size)
    taken = getattr(layer, kind.takes)
    return int(taken[-1] if isinstance(taken, tuple) else taken)


def width_given(layer: nn.Module, width: int | None) -> int | None:
    """Number of dimensions that ``layer`` makes of ``width``; None if nobody knows."""
    if is_head(layer):
        return int(layer.output_size)  # type: ignore[arg-type]
    kind = _kind(layer)
    if kind is None:
        return None
    if kind.gives is not None:
        return int(getattr(layer, kind.gives))
    return width_taken(layer) or width


def describe_layer(layer: nn.Module, place: str) -> dict[str, Any]:
    """The config from which :func:`sequential_layer` builds ``layer`` again.

    Raises:
        ConfigError: There is no such config.

    Example:
        >>> describe_layer(nn.LayerNorm(4, bias=False), "layer 0")
        {'type': 'LayerNorm', 'normalized_shape': [4], 'eps': 1e-05, 'elementwise_affine': True, 'bias': False}
    """
    if isinstance(layer, EncoderHead):
        return describe_head(layer, place)
    kind = _kind(layer)
    if kind is None:
        raise ConfigError(
            f"{place} is a {type(layer).__name__}, which a saved head cannot describe: use {', '.join(sorted(LAYERS))} "
            f"of torch.nn, or a head whose class has @registry.heads.register_module() above it"
        )
    config = {"type": type(layer).__name__, **{word: _json_value(layer, word) for word in kind.words}}
    # Hooks and parametrizations add weights of their own.
    with torch.device("meta"):
        if _shapes(_from_config(config, None, place)) != _shapes(layer):
            raise ConfigError(f"{place}, {type(layer).__name__}, was altered after it was built: no config says it")
    return config


def _kind(layer: nn.Module) -> LayerKind | None:
    name = type(layer).__name__
    return LAYERS.get(name) if type(layer) is getattr(nn, name, None) else None


def _from_config(config: Any, width: int | None, place: str) -> nn.Module:
    name = config.get("type") if isinstance(config, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(f"{place} must be a module or its config {{'type': NAME, ...}}, got {config!r:.80}")
    if name in LAYERS:
        words = {word: value for word, value in config.items() if word != "type"}
        return _of_torch(name, words, width, f"{place}, {name}")
    if name not in heads and known_class(name, heads) is None:
        raise ConfigError(
            f"{place} has the unknown type {name!r}; {nearest(name, [*LAYERS, *heads.names()])}. For a head of your "
            f"own in a saved model, {how_to_allow(name)}"
        )
    return nested_head(config, width, place)


def _of_torch(name: str, words: dict[str, Any], width: int | None, place: str) -> nn.Module:
    kind = LAYERS[name]
    for word in words:
        if word not in kind.words:
            raise ConfigError(f"{place}, has no setting {word!r}; {nearest(word, kind.words)}")
    if kind.takes is not None and kind.takes not in words:
        if width is None:
            raise ConfigError(f"{place}: give {kind.takes}; nothing says how many dimensions come in")
        words = {kind.takes: width, **words}
    for word in set(words) & {kind.takes, kind.gives}:
        if not isinstance(words[word], (list, tuple)):
            positive_size(f"{place}: {word}", words[word])
    try:
        layer: nn.Module = getattr(nn, name)(**words)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{place}: {error}") from error
    return layer


def _json_value(layer: nn.Module, word: str) -> Any:
    value = getattr(layer, word)
    if word == "bias":
        return value is not None
    return list(value) if isinstance(value, tuple) else value


def _shapes(layer: nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in layer.state_dict().items()}
