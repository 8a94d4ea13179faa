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
from simtrain.encoders import ModuleEncoder, VisionEncoder
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


PARTS = """
import functools
import re

import numpy as np
import torch
from torch import nn

import helpers
from helpers import clean
from simtrain.encoders import Encoder


class Scale:
    factor = 1

    def __init__(self, k):
        self.k = k

    def __call__(self, x):
        return self.scaled(x) * self.factor

    def scaled(self, x):
        return x * self.k


LIMIT = 3
WORDS = frozenset({"alpha", "beta", "gamma", "delta"})
TRANSFORM = Scale(2)
PATTERN = re.compile("a+")
MEAN = torch.tensor([1.0])
DEVIATION = np.ones(2)
TWICE = lambda x: x + 2
HALF = functools.partial(max, 0.5)


def cut(text, words={"one", "two", "three"}):
    return text[:LIMIT] if text in ("a", "b") and text in {"x", "y", "z"} else WORDS


def collate(texts):
    from late import ending

    texts = [ending(clean(helpers.strip(cut(PATTERN.sub("", text))))) for text in texts]
    rows = [float(HALF(TWICE(TRANSFORM(len(text))))) for text in texts]
    return (torch.tensor(rows)[:, None] - MEAN) / torch.as_tensor(DEVIATION)


def activation(x):
    return x * 1.5


class Parent(Encoder):
    trainable = False
    embedding_size = 2

    def shifted(self, x):
        return x + 4


class Own(Parent):
    def __init__(self):
        super().__init__()
        self._scale = 7
        self.power = 8
        self.act = lambda x: x * 9
        self.offset = torch.tensor([10.0])
        self.inner = Scale(11)
        self.layer = nn.Identity()
        self.layer.register_forward_hook(lambda module, given, output: output * 12)
        self.layer.squash = torch.relu

    def get_config_dict(self):
        return {"size": 2}

    def get_collate_fn(self):
        return collate

    def forward(self, x):
        return activation(self.act(self.shifted(self.layer(x) * self._scale) ** self.power + self.offset))


class Bound(Own):
    def get_collate_fn(self):
        return self.collated

    def collated(self, texts):
        return torch.tensor([[float(len(text))] for text in texts]) * self.inner(1)
"""
HELPERS = """
SIGN = "-"


def clean(text):
    return text.lower() + SIGN


def strip(text):
    return text.strip()
"""
LATE = "def ending(text):\n    return text + '.'\n"
EDITS = [
    ("user", "LIMIT = 3", "LIMIT = 4"),
    ("user", "text[:LIMIT]", "text[LIMIT:]"),
    ("user", '("a", "b")', '("a", "c")'),
    ("user", '{"one", "two", "three"}', '{"one", "two"}'),
    ("user", '"delta"}', '"epsilon"}'),
    ("user", "Scale(2)", "Scale(3)"),
    ("user", "x * self.k", "x + self.k"),
    ("user", "self.scaled(x) *", "self.scaled(x) +"),
    ("user", "factor = 1", "factor = 2"),
    ("user", '"a+"', '"b+"'),
    ("user", 're.compile("a+")', 're.compile("a+", re.I)'),
    ("user", "torch.tensor([1.0])", "torch.tensor([2.0])"),
    ("user", "np.ones(2)", "np.full(2, 2.0)"),
    ("user", "x + 2", "x + 3"),
    ("user", "max, 0.5", "max, 0.6"),
    ("user", "partial(max", "partial(min"),
    ("user", "x * 1.5", "x * 2.5"),
    ("user", "x + 4", "x + 5"),
    ("user", "self._scale = 7", "self._scale = 8"),
    ("user", "self.power = 8", "self.power = 9"),
    ("user", "x * 9", "x * 10"),
    ("user", "tensor([10.0])", "tensor([11.0])"),
    ("user", "Scale(11)", "Scale(12)"),
    ("user", "output * 12", "output * 13"),
    ("user", "torch.relu", "torch.tanh"),
    ("user", '"size": 2', '"size": 3'),
    ("helpers", "text.lower()", "text.upper()"),
    ("helpers", 'SIGN = "-"', 'SIGN = "+"'),
    ("helpers", "text.strip()", "text.lstrip()"),
    ("late", "'.'", "'!'"),
]
PRINTS = """
import sys
import user
from simtrain.cache import encoder_fingerprint
print(encoder_fingerprint(user.Own()), encoder_fingerprint(user.Bound()))
"""


def prints_of(folder: Path, sources: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    folder.mkdir(exist_ok=True)
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the files change within a second
    for name in sources:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    user = importlib.import_module("user")
    found = [encoder_fingerprint(user.Own()), encoder_fingerprint(user.Bound())]
    for name in sources:
        sys.modules.pop(name, None)
    return found


@pytest.fixture
def sources() -> dict[str, str]:
    return {"helpers": HELPERS, "late": LATE, "user": PARTS}


@pytest.mark.parametrize(("name", "old", "new"), EDITS)
def test_an_edit_of_whatever_an_encoder_uses_is_noticed(sources, tmp_path, monkeypatch, name, old, new):
    before = prints_of(tmp_path / "before", sources, monkeypatch)
    edited = {**sources, name: sources[name].replace(old, new)}
    assert edited != sources
    assert prints_of(tmp_path / "after", edited, monkeypatch)[0] != before[0]


def test_what_an_encoder_uses_is_the_same_in_another_process(sources, tmp_path, monkeypatch):
    here = prints_of(tmp_path, sources, monkeypatch)
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": paths}
    there = subprocess.run([sys.executable, "-c", PRINTS], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.split() == here


def test_names_that_an_encoder_ignores_do_not_count(sources, tmp_path, monkeypatch):
    ignoring = PARTS.replace("trainable = False", 'trainable = False\n    cache_ignores = {"_scale", "LIMIT"}')
    ignoring = ignoring.replace("_scale = 7", "_scale = LIMIT")
    before = prints_of(tmp_path / "before", {**sources, "user": ignoring}, monkeypatch)
    edited = ignoring.replace("LIMIT = 3", "LIMIT = 4")
    assert prints_of(tmp_path / "after", {**sources, "user": edited}, monkeypatch) == before


def test_a_variable_without_identity_is_refused_by_name(sources, tmp_path, monkeypatch):
    locked = PARTS.replace("TRANSFORM = Scale(2)", "import threading\nTRANSFORM = threading.Lock()")
    with pytest.raises(
        CacheError, match=r"the variable 'user.TRANSFORM': a _thread.lock .* name it in .*cache_ignores"
    ):
        prints_of(tmp_path, {**sources, "user": locked}, monkeypatch)
    held = PARTS.replace("self._scale = 7", "import threading\n        self._scale = threading.Lock()")
    with pytest.raises(CacheError, match=r"the attribute '_scale' of the encoder: a _thread.lock"):
        prints_of(tmp_path, {**sources, "user": held}, monkeypatch)


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


class CountingVision(VisionEncoder):
    cache_ignores = frozenset({"n_images"})
    n_images = 0

    def forward(self, batch):
        self.n_images += len(batch)
        return super().forward(batch)


def test_what_a_forward_keeps_for_itself_does_not_change_an_encoder_of_the_users():
    encoder = CountingVision(nn.Conv2d(3, 4, 4, stride=4), image_size=8)
    before = encoder_fingerprint(encoder)
    encoder(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert encoder.n_images == 2
    assert encoder_fingerprint(encoder) == before
