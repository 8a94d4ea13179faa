import copy
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from simtrain.cache import callable_fingerprint, encoder_fingerprint
from simtrain.encoders import ModuleEncoder
from simtrain.errors import CacheError

# Read by this process and by others with other hash seeds.
TOYS = '''
import functools
from dataclasses import dataclass

import torch
from torch import nn

from simtrain.encoders import ModuleEncoder

LIMIT = 3
WORDS = frozenset({"alpha", "beta", "gamma", "delta"})


def cut(text, words={"one", "two", "three"}):
    return text[:LIMIT] if text in ("a", "b") and text in {"x", "y", "z"} else WORDS


@dataclass(frozen=True)
class Cutter:
    limit: int

    def __call__(self, texts):
        return [cut(text) for text in texts]

    def method(self, texts):
        return texts


class Plain:
    """An encoder of another package: no get_config_dict."""


class Foreign(nn.Module):
    trainable = False
    embedding_size = 2

    def __init__(self):
        super().__init__()
        self.pooling = "mean"
        self.words = {"c": 1, "a": 2}
        self.layer = nn.Linear(2, 2, bias=False)
        nn.init.ones_(self.layer.weight)

    def tokenize(self, texts):
        return [self.words[text] for text in texts]

    def get_collate_fn(self):
        return self.tokenize


def all_callables():
    recursive = lambda n: recursive(n - 1) if n else LIMIT
    return [cut, Cutter(3), Cutter(3).method, functools.partial(cut, words={"p", "q", "r"}), recursive, torch.stack,
            "x".join, Cutter, functools.lru_cache(cut)]


def all_encoders():
    bottom = nn.Linear(2, 2)
    nn.init.zeros_(bottom.weight)
    nn.init.zeros_(bottom.bias)
    return [Foreign(), ModuleEncoder(nn.Sequential(bottom, nn.BatchNorm1d(2)), 2, transform=cut)]
'''
SCRIPT = """
from toys import all_callables, all_encoders
from simtrain.cache import callable_fingerprint, encoder_fingerprint
print(*map(callable_fingerprint, all_callables()), *map(encoder_fingerprint, all_encoders()))
"""


def load_toys(path: Path):
    spec = importlib.util.spec_from_file_location("toys", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["toys"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toys(tmp_path):
    path = tmp_path / "toys.py"
    path.write_text(TOYS)
    yield load_toys(path)
    del sys.modules["toys"]


def test_fingerprints_are_equal_in_another_process(toys, tmp_path):
    here = [*map(callable_fingerprint, toys.all_callables()), *map(encoder_fingerprint, toys.all_encoders())]
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "PYTHONPATH": paths}
    there = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.split() == here
    assert len(set(here)) == len(here) == 11


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("text[:LIMIT]", "text[LIMIT:]"),
        ('("a", "b")', '("a", "c")'),
        ('{"one", "two", "three"}', '{"one", "two"}'),
        ('"delta"}', '"epsilon"}'),
    ],
)
def test_an_edited_function_is_noticed(toys, tmp_path, old, new):
    path = tmp_path / "toys.py"
    edited_source = TOYS.replace(old, new)
    assert edited_source != TOYS
    before = [callable_fingerprint(toys.cut), callable_fingerprint(toys.Cutter(3))]
    path.write_text(edited_source)
    edited = load_toys(path)
    assert callable_fingerprint(edited.cut) != before[0]
    assert callable_fingerprint(edited.Cutter(3)) != before[1]


def test_an_unedited_function_is_the_same_when_loaded_again(toys, tmp_path):
    before = callable_fingerprint(toys.cut)
    assert callable_fingerprint(load_toys(tmp_path / "toys.py").cut) == before


def closure_over(value):
    return lambda texts: [value for _ in texts]


class Collate:
    def __init__(self, settings):
        self.settings = settings

    def __call__(self, texts):
        return self.settings

    def other(self, texts):
        return self.settings


DIFFERENT = [
    lambda x: x + 1,
    lambda x: x + 2,
    lambda x: x + 1.0,
    lambda x, y=1: x + 1,
    lambda x, *, y=1: x + 1,
    closure_over(1),
    closure_over(True),
    closure_over([1, 2]),
    closure_over(np.arange(2)),
    closure_over(closure_over(1)),
    Collate(1),
    Collate({"a": torch.ones(2)}),
    Collate({"a": torch.zeros(2)}),
    Collate(1).other,
    Collate(2).other,
    functools.partial(max, 1),
    functools.partial(max, 2),
    functools.partial(max, key=1),
    default_collate,
    torch.stack,
    torch.cat,
    str.lower,
    nn.Linear,
]


def test_different_callables_have_different_fingerprints():
    assert len({callable_fingerprint(function) for function in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize("position", range(len(DIFFERENT)))
def test_a_copy_has_the_same_fingerprint(position):
    assert callable_fingerprint(copy.deepcopy(DIFFERENT[position])) == callable_fingerprint(DIFFERENT[position])


def test_cycles_end():
    collate = Collate(None)
    collate.settings = {"self": collate}
    other = Collate(None)
    other.settings = {"self": other}
    assert callable_fingerprint(collate) == callable_fingerprint(other)


def test_what_has_no_identity_is_refused(tmp_path):
    with (
        (tmp_path / "file").open("w") as file,
        pytest.raises(CacheError, match="TextIOWrapper that"),
    ):
        callable_fingerprint(Collate(file))


def test_encoders_with_equal_content_are_equal(make_encoder):
    assert encoder_fingerprint(make_encoder()) == encoder_fingerprint(make_encoder())


def changed_weight(encoder):
    with torch.no_grad():
        encoder.weight[0, 0] += 1e-6


def changed_config(encoder):
    encoder.scale = 2.0


def changed_collate(encoder):
    encoder.get_collate_fn = lambda: lambda texts: texts


def changed_buffer(encoder):
    encoder.register_buffer("mean", torch.zeros(2))


def changed_type(encoder):
    encoder.double()


def changed_part(encoder):
    encoder.last = nn.GELU()


def changed_part_settings(encoder):
    encoder.last = nn.GELU(approximate="tanh")


def changed_forward(encoder):
    encoder.__class__ = type("DigestEncoder", (type(encoder),), {"forward": lambda self, batch: batch})
    encoder.__class__.__module__ = type(encoder).__mro__[1].__module__
    encoder.__class__.__qualname__ = type(encoder).__mro__[1].__qualname__


CHANGES = [
    changed_weight,
    changed_config,
    changed_collate,
    changed_buffer,
    changed_type,
    changed_part,
    changed_part_settings,
    changed_forward,
]


def test_every_change_of_an_encoder_is_noticed(make_encoder):
    prints = [encoder_fingerprint(make_encoder())]
    for change in CHANGES:
        encoder = make_encoder()
        change(encoder)
        prints.append(encoder_fingerprint(encoder))
    assert len(set(prints)) == len(CHANGES) + 1


def test_mode_and_use_do_not_count(make_encoder):
    encoder = make_encoder()
    before = encoder_fingerprint(encoder)
    encoder.eval()
    encoder(torch.zeros(1, 16))
    assert encoder_fingerprint(encoder) == before


def test_plain_attributes_stand_for_a_missing_config(toys):
    encoder, other = toys.Foreign(), toys.Foreign()
    other.pooling = "max"
    assert encoder_fingerprint(encoder) != encoder_fingerprint(other)


def test_weights_of_zero_dimensions_and_sizes_are_taken():
    encoder = ModuleEncoder(nn.Identity(), 1)
    encoder.temperature = nn.Parameter(torch.tensor(1.0))
    encoder.register_buffer("none", torch.zeros(0, 2))
    assert len(encoder_fingerprint(encoder)) == 32


def test_weights_without_content_are_refused():
    with pytest.raises(CacheError, match=r"the weight 'module.weight' is on the meta device"):
        encoder_fingerprint(ModuleEncoder(nn.Linear(2, 2, device="meta"), 2))
