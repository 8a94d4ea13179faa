"""Low-rank adapters in the linear layers of a transformer, made by peft."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from simtrain.encoders.positive_size import positive_size
from simtrain.errors import ConfigError, import_extra, nearest

T = TypeVar("T", bound=nn.Module)


@dataclass(frozen=True)
class LoraSettings:
    """What ``lora={...}`` of the text encoders takes.

    Args:
        r: Rank of the adapters.
        alpha: The adapters' output is multiplied by ``alpha / r``.
        dropout: Chance of each of the adapters' inputs to be zeroed in training, from 0 to below 1.
        target_modules: Ends of names of the linear layers that get one, or ``"all-linear"``. Default: peft's choice
            for the architecture, most often the queries and values of attention.

    Raises:
        ConfigError: A value is wrong.

    Reference:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021.
    """

    r: int = 8
    alpha: float | int = 16
    dropout: float | int = 0.0
    target_modules: list[str] | str | None = None

    def __post_init__(self) -> None:
        positive_size("lora's r", self.r)
        if not _is_number(self.alpha) or not self.alpha > 0:
            raise ConfigError(f"lora's alpha must be a number above 0, got {self.alpha!r}")
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ConfigError(f"lora's dropout must be from 0 to below 1, got {self.dropout!r}")
        if not _are_targets(self.target_modules):
            raise ConfigError(
                f"lora's target_modules must be 'all-linear', a list of ends of layers' names, or None for peft's "
                f"choice, got {self.target_modules!r:.80}"
            )


def check_lora(lora: Mapping[str, Any], trainable: bool | str) -> LoraSettings:
    """Settings from what the user gave; the adapters are trained whether ``trainable`` is True or False.

    Raises:
        ConfigError: A setting is unknown or wrong, or ``trainable`` asks for the last layers.
        MissingExtraError: peft is not installed.

    Example:
        >>> check_lora({"rank": 8}, True)
        Traceback (most recent call last):
        ...
        simtrain.errors.ConfigError: lora has no setting 'rank'; accepted: 'alpha', 'dropout', 'r', 'target_modules'
    """
    if not isinstance(lora, Mapping):
        raise ConfigError(f"lora must be a mapping such as {{'r': 8, 'alpha': 16}}, got {lora!r:.80}")
    known = [field.name for field in fields(LoraSettings)]
    for word in lora:
        if word not in known:
            raise ConfigError(f"lora has no setting {word!r}; {nearest(str(word), known)}")
    if isinstance(trainable, str):
        raise ConfigError(f"lora trains adapters alone, so trainable={trainable!r} has nothing to train; leave it out")
    settings = LoraSettings(**lora)
    import_extra("peft", "lora")
    return settings


def add_adapters(transformer: nn.Module, settings: LoraSettings) -> None:
    """Put adapters into ``transformer``, in place; afterwards they alone take gradients.

    The new adapters change no output: their second factor starts at zero.

    Raises:
        ConfigError: No layer has a name that ``target_modules`` gives, or peft knows no default for the architecture.
    """
    peft = import_extra("peft", "lora")
    _check_targets(transformer, settings.target_modules)
    words = asdict(settings)
    config = peft.LoraConfig(
        r=words["r"],
        lora_alpha=words["alpha"],
        lora_dropout=words["dropout"],
        target_modules=words["target_modules"],
        # No pooling here uses a transformer's own pooler: adapters there would never be trained.
        exclude_modules=_below(transformer, "pooler") or None,
    )
    try:
        peft.inject_adapter_in_model(config, transformer)
    except ValueError as error:
        raise ConfigError(f"lora: {error}; {_advice(transformer)}") from error


def merged_copy(model: T) -> T:
    """A copy of ``model`` whose adapters are added to the weights of their layers and gone; same outputs in eval mode.

    Args:
        model: A module with adapters somewhere in it. It is left as it is.
    """
    layer_class = import_extra("peft.tuners.tuners_utils", "lora").BaseTunerLayer
    merged = copy.deepcopy(model)
    for name, layer in list(merged.named_modules()):
        if isinstance(layer, layer_class):
            layer.merge()
            owner, _, attribute = name.rpartition(".")
            setattr(merged.get_submodule(owner), attribute, layer.get_base_layer())
    for part in merged.modules():
        # Else transformers would take the model for one with adapters, and save those alone.
        for attribute in ("peft_config", "_hf_peft_config_loaded"):
            part.__dict__.pop(attribute, None)
    return merged


def under_adapters(plain: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a model without adapters, as one with adapters in the same layers takes them.

    Args:
        plain: Weights of the model without adapters.
        own: Those of the model with adapters, or without any: then ``plain`` comes back.

    Returns:
        ``plain`` under the names of ``own``, and adapters that change no output.

    Example:
        >>> import torch
        >>> own = {"0.base_layer.weight": torch.zeros(2), "0.lora_B.default.weight": torch.ones(1)}
        >>> under_adapters({"0.weight": torch.ones(2)}, own)
        {'0.base_layer.weight': tensor([1., 1.]), '0.lora_B.default.weight': tensor([0.])}
    """
    names = {name.replace(".base_layer.", "."): name for name in own if ".base_layer." in name}
    adapters = {name: value for name, value in own.items() if names and ".lora_" in name}
    # The factor that peft starts at zero; both at zero would never be trained.
    begun = {
        name: torch.zeros_like(value) if ".lora_B." in name or ".lora_embedding_A." in name else value
        for name, value in adapters.items()
    }
    return {**{names.get(name, name): value for name, value in plain.items()}, **begun}


def _below(module: nn.Module, end: str) -> list[str]:
    roots = [name for name, _ in module.named_modules() if name.split(".")[-1] == end]
    return [name for name, _ in module.named_modules() if any(name.startswith(f"{root}.") for root in roots)]


def _check_targets(transformer: nn.Module, targets: list[str] | str | None) -> None:
    names = [name for name, _ in transformer.named_modules()]
    for target in targets if isinstance(targets, (list, tuple)) else ():
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ConfigError(f"lora: no layer's name ends in {target!r}; {_advice(transformer)}")


def _advice(transformer: nn.Module) -> str:
    linear = {name.split(".")[-1] for name, layer in transformer.named_modules() if isinstance(layer, nn.Linear)}
    listed = ", ".join(repr(name) for name in sorted(linear)[:8]) or "none (it has no linear layer)"
    return (
        f"give target_modules='all-linear', or a list of ends of names of {type(transformer).__name__}'s linear "
        f"layers, such as {listed}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_targets(given: Any) -> bool:
    if given is None or given == "all-linear":
        return True
    is_list = isinstance(given, (list, tuple)) and len(given) > 0
    return is_list and all(isinstance(name, str) and name for name in given)
