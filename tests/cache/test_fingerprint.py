import copy
import functools
import importlib
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
from simtrain.errors import CacheError

ROOT = Path(__file__).parents[2]

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
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "PYTHONPATH": paths}
    there = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.split() == here
    assert len(set(here)) == len(here) == 11


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


def test_plain_attributes_stand_for_a_missing_config(toys):
    encoder, other = toys.Foreign(), toys.Foreign()
    other.pooling = "max"
    assert encoder_fingerprint(encoder) != encoder_fingerprint(other)
