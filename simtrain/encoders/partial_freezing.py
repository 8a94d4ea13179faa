"""Training only the last layers of a model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from simtrain.errors import ConfigError, nearest


def parse_trainable(trainable: bool | str) -> int | None:
    """Number of last layers to train: ``"last:2"`` gives 2, True gives None (all), False gives 0.

    Raises:
        ConfigError: Neither a bool nor ``"last:N"`` with N of 1 or more.

    Example:
        >>> parse_trainable("last:2"), parse_trainable(True), parse_trainable(False)
        (2, None, 0)
    """
    if isinstance(trainable, bool):
        return None if trainable else 0
    count = trainable.removeprefix("last:") if isinstance(trainable, str) and trainable.startswith("last:") else ""
    if not (count.isascii() and count.isdigit()) or int(count) == 0:
        raise ConfigError(f"trainable must be False, True or 'last:N' with N of 1 or more, got {trainable!r}")
    return int(count)


def parse_whole(trainable: bool) -> bool:
    """Return ``trainable`` where an encoder has no layers to choose from.

    Raises:
        ConfigError: It is no bool.

    Example:
        >>> parse_whole(True)
        True
    """
    if not isinstance(trainable, bool):
        raise ConfigError(f"trainable must be False or True here, there are no layers to choose; got {trainable!r}")
    return trainable


def parse_from(trainable: bool | str) -> str | None:
    """Name of the first module to train: ``"from:layer4"`` gives ``"layer4"``, a bool None.

    Raises:
        ConfigError: Neither a bool nor ``"from:NAME"``.

    Example:
        >>> parse_from("from:layer4"), parse_from(True)
        ('layer4', None)
    """
    if isinstance(trainable, bool):
        return None
    if not isinstance(trainable, str) or not trainable.startswith("from:") or trainable == "from:":
        raise ConfigError(
            f"trainable must be False, True or 'from:NAME', with the name of the first module to train, got "
            f"{trainable!r}"
        )
    return trainable.removeprefix("from:")


def named_and_rest(module: nn.Module, name: str) -> list[nn.Module]:
    """A module by its name in another one, and what comes after it.

    Raises:
        ConfigError: There is none of that name.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 3)), nn.Linear(3, 4))
        >>> named_and_rest(net, "1.1")
        [Linear(in_features=2, out_features=3, bias=True), Linear(in_features=3, out_features=4, bias=True)]
    """
    named = {known: part for known, part in module.named_modules() if known}
    if name not in named:
        raise ConfigError(
            f"trainable='from:{name}': {type(module).__name__} has no such module; {nearest(name, named)}"
        )
    return [named[name], *modules_after(module, named[name])]


def freeze_pooler(transformer: object) -> None:
    """Freeze a transformer's own pooler, which takes no part in the embeddings.

    In training by several processes a trainable weight without a gradient is an error.
    """
    for module in unused_modules(transformer):
        module.requires_grad_(False)


def unused_modules(transformer: object) -> list[nn.Module]:
    """A transformer's own pooler, if it has one: no embedding is computed from it."""
    pooler = getattr(transformer, "pooler", None)
    return [pooler] if isinstance(pooler, nn.Module) else []


def layer_stack(module: nn.Module) -> nn.ModuleList:
    """The transformer layers of ``module``: the longest list of equal modules in it.

    Raises:
        ConfigError: There is no such list.
    """
    stacks = [m for m in module.modules() if isinstance(m, nn.ModuleList) and len({type(layer) for layer in m}) == 1]
    if not stacks:
        raise ConfigError(f"trainable='last:N' needs a stack of transformer layers, {type(module).__name__} has none")
    return max(stacks, key=len)


def last_layers(module: nn.Module, count: int) -> list[nn.Module]:
    """The last ``count`` transformer layers of ``module``.

    Raises:
        ConfigError: It has fewer, or none.
    """
    stack = layer_stack(module)
    if count > len(stack):
        raise ConfigError(f"trainable='last:{count}' asks for more than the model's {len(stack)} layers")
    return list(stack)[-count:]


def layers_and_rest(module: nn.Module, count: int) -> list[nn.Module]:
    """The last ``count`` transformer layers of ``module``, and what comes after them (a last norm, say).

    Raises:
        ConfigError: It has fewer, or none.
    """
    layers = last_layers(module, count)
    return [*layers, *modules_after(module, layers[-1])]


def building_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of a vision backbone, first to last: the most frequent kind of part that is stacked in it.

    A stack is a ``ModuleList`` or ``Sequential`` of modules of one class that have parts themselves; a backbone may
    have a stack for each of its stages. What is inside a block is no block.

    Raises:
        ConfigError: There is no stack.

    Example:
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layers = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> stages = [nn.Sequential(*(Block() for _ in range(count))) for count in (2, 3)]
        >>> len(building_blocks(nn.Sequential(nn.Linear(2, 2), *stages)))
        5
    """
    kinds: dict[type, list[nn.Module]] = {}
    for block in _stacked(module):
        kinds.setdefault(type(block), []).append(block)
    if not kinds:
        raise ConfigError(f"trainable='last:N' needs stacks of equal blocks, {type(module).__name__} has none")
    return max(kinds.values(), key=len)


def blocks_and_rest(module: nn.Module, count: int) -> list[nn.Module]:
    """The last ``count`` blocks of a vision backbone, and what comes after them.

    Raises:
        ConfigError: It has fewer, or none.
    """
    blocks = building_blocks(module)
    if count > len(blocks):
        raise ConfigError(f"trainable='last:{count}' asks for more than the backbone's {len(blocks)} blocks")
    return [*blocks[-count:], *modules_after(module, blocks[-1])]


def modules_after(root: nn.Module, part: nn.Module) -> list[nn.Module]:
    """The largest modules of ``root`` that were registered after ``part``, in their order.

    Registration follows computation in the usual models.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 3)), nn.Linear(3, 4))
        >>> modules_after(net, net[1][0])
        [Linear(in_features=2, out_features=3, bias=True), Linear(in_features=3, out_features=4, bias=True)]
    """
    for position, child in enumerate(root.children()):
        if any(each is part for each in child.modules()):
            return [*modules_after(child, part), *list(root.children())[position + 1 :]]
    return []


def set_trained(module: nn.Module, parts: Sequence[nn.Module]) -> None:
    """Let the weights of ``parts`` take gradients, and no others of ``module``."""
    module.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)


def train_parts(module: nn.Module, parts: Sequence[nn.Module], mode: bool) -> None:
    """Put ``parts`` into train or eval mode, and all else in ``module`` into eval mode."""
    module.eval()
    for part in parts:
        part.train(mode)


def _stacked(module: nn.Module) -> list[nn.Module]:
    parts = list(module.children())
    if isinstance(module, (nn.ModuleList, nn.Sequential)) and len({type(part) for part in parts}) == 1:
        is_container = type(parts[0]) in (nn.ModuleList, nn.Sequential)
        if not is_container and all(list(part.children()) for part in parts):
            return parts
    return [block for part in parts for block in _stacked(part)]
