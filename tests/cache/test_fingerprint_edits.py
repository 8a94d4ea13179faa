"""An edit of anything that an encoder uses changes its fingerprint."""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simtrain.cache import encoder_fingerprint
from simtrain.errors import CacheError

ROOT = Path(__file__).parents[2]

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
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
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
