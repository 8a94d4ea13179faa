"""What an encoder of installed modules computes is seen wherever torch keeps it; each case once was a stale vector."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn

from simtrain.cache import encoder_fingerprint
from simtrain.encoders import Encoder, ModuleEncoder


def print_of(module: nn.Module) -> str:
    return encoder_fingerprint(ModuleEncoder(module, 2))


def linear(seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(2, 2)


class Curved(nn.Module):
    """A layer and a curve, chosen by a number."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.layer, self.kind = linear(), kind

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(batch)) if self.kind == 0 else torch.tanh(self.layer(batch))


class Tied(nn.Module):
    """The last layer has the weight of one of the others."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.one, self.two, self.last = linear(1), linear(2), linear(3)
        self.last.weight = (self.one, self.two)[kind].weight

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.one(batch))
        return out


class Scaled(nn.Module):
    def __init__(self, kind: int) -> None:
        super().__init__()
        self.factor, self.factors = kind, [kind]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch * self.factor + self.factors[0] + torch.tensor([3.0])


def layer_twice(kind: int) -> nn.Module:
    layer = linear()
    return nn.Sequential(layer, nn.ReLU(), *[layer] * kind)


def curve_twice(kind: int) -> nn.Module:
    curve = nn.ReLU()
    return nn.Sequential(linear(0), curve, linear(1), *[curve] * kind)


def order_of_two(kind: int) -> nn.Module:
    first, second = nn.ReLU(), nn.ReLU()
    return nn.Sequential(first, second, (first, second)[kind])


def quantized(kind: int) -> nn.Module:
    quantize: Any = torch.ao.quantization.quantize_dynamic
    made: nn.Module = quantize(nn.Sequential(linear(kind)), {nn.Linear})
    return made


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held


def with_function(name: str, wrap: Callable[[Any], Any], kind: int) -> nn.Module:
    module = nn.Identity()
    setattr(module, name, wrap(lambda batch: batch * kind))
    return module


def parametrized(kind: int) -> nn.Module:
    layer = linear()
    nn.utils.parametrize.register_parametrization(layer, "weight", Scaled(kind))
    return layer


PAIRS: dict[str, Callable[[int], nn.Module]] = {
    "a layer once more": layer_twice,
    "a curve once more": curve_twice,
    "a tied weight": Tied,
    "packed weights": quantized,
    "traced by fx": lambda kind: fx.symbolic_trace(Curved(kind)),
    "traced": lambda kind: torch.jit.trace(Curved(kind), torch.zeros(1, 2)),
    "scripted": lambda kind: torch.jit.script(Scaled(kind)),
    "inside a scripted one": lambda kind: torch.jit.script(nn.Sequential(nn.ReLU(), Scaled(kind))),
    "a parametrization": parametrized,
    "a function": functools.partial(with_function, "after", lambda f: f),
    "a function of a list": functools.partial(with_function, "after", lambda f: [f]),
    "a function of a dict": functools.partial(with_function, "after", lambda f: {"f": (f,)}),
    "a private function": functools.partial(with_function, "_after", lambda f: f),
    "a private partial": functools.partial(with_function, "_after", lambda f: functools.partial(map, f)),
    "a private object": functools.partial(with_function, "_after", Holder),
}


@pytest.mark.filterwarnings("ignore:.*(deprecated|TorchScript|torch.jit|torch.ao).*")
@pytest.mark.parametrize("name", PAIRS)
def test_modules_that_compute_something_else_have_other_fingerprints(name: str) -> None:
    make = PAIRS[name]
    prints = [print_of(make(kind)) for kind in (0, 1, 0)]
    assert prints[0] != prints[1]
    assert prints[0] == prints[2]


def test_places_of_equal_parts_that_compute_the_same_are_told_apart_at_no_harm() -> None:
    assert print_of(order_of_two(0)) != print_of(order_of_two(1))


@pytest.mark.filterwarnings("ignore:.*(deprecated|TorchScript|torch.jit).*")
def test_a_traced_module_is_the_same_after_use_and_whenever_it_is_loaded(tmp_path: Any) -> None:
    torch.jit.save(torch.jit.trace(Curved(0), torch.zeros(1, 2)), tmp_path / "traced.pt")
    encoder = ModuleEncoder(torch.jit.load(tmp_path / "traced.pt"), 2)
    before = encoder_fingerprint(encoder)
    encoder(torch.zeros(3, 2))
    encoder(torch.zeros(3, 2))
    torch.jit.trace(Curved(1), torch.zeros(1, 2))  # another class of this name
    assert encoder_fingerprint(encoder) == before
    assert print_of(torch.jit.load(tmp_path / "traced.pt")) == before
    with torch.no_grad():
        encoder.module.layer.weight += 1
    assert encoder_fingerprint(encoder) != before


class Derived(Encoder):
    trainable = False
    embedding_size = 2

    @functools.cached_property
    def factor(self) -> int:
        return 3

    def get_collate_fn(self) -> Any:
        return torch.stack


def test_cached_properties_have_an_identity() -> None:
    changed = functools.cached_property(lambda self: 4)
    changed.__set_name__(Derived, "factor")
    other = type("Derived", (Derived,), {"factor": changed, "__module__": __name__})
    assert encoder_fingerprint(Derived()) == encoder_fingerprint(Derived())
    assert encoder_fingerprint(other()) != encoder_fingerprint(Derived())
