"""``compile`` changes no number; in a process of its own, since run-time type checks cannot be traced."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import copy, sys
import numpy as np
import torch
from torch import nn
from simtrain.encoders import NgramEncoder
from simtrain.heads import SkipConnectionHead
from simtrain.models import SimilarityModel

TEXTS = ["a red shoe", "the sky", "", "a"]
runs = []

def counting(graph, inputs):
    runs.append(graph)
    return graph.forward

torch.manual_seed(0)
head = SkipConnectionHead(12)
nn.init.normal_(head.fc_0.weight)
model = SimilarityModel({"a": NgramEncoder(8, 50), "b": NgramEncoder(4, 50, trainable=False)}, head)
plain = copy.deepcopy(model)
model.compile(backend=counting)

np.testing.assert_allclose(model.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)
assert len(runs) >= 3, "both encoders and the head are compiled"
for one in (model, plain):
    one.train()(one.collate(TEXTS)).square().sum().backward()
for (name, a), (same, b) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
    assert name == same
    assert (a.grad is None) == (b.grad is None) == name.startswith("encoders.b")
    if a.grad is not None:
        torch.testing.assert_close(a.grad, b.grad)
model.save(sys.argv[1])
np.testing.assert_allclose(SimilarityModel.load(sys.argv[1]).encode(TEXTS), plain.encode(TEXTS), atol=1e-6)

runs.clear()
twin = SimilarityModel(NgramEncoder(12, 50), head).eval()  # another model around the same head
with torch.enable_grad():
    twin(twin.collate(TEXTS))
    assert head._compiled_call_impl is not None and twin.head is head
assert copy.deepcopy(head)._compiled_call_impl is None
"""


@pytest.mark.slow
def test_a_compiled_model_encodes_and_trains_as_before(tmp_path: object) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, f"{tmp_path}/model"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
