"""The public names are pinned, and importing them stays light."""

import importlib
import subprocess
import sys

import pytest

import simtrain

ROOMS = [
    "cache",
    "data",
    "encoders",
    "evaluation",
    "heads",
    "losses",
    "metrics",
    "models",
    "runner",
    "serving",
    "training",
    "xbm",
]


def test_every_public_name_is_there():
    assert simtrain.__all__ == sorted(simtrain.__all__)
    for name in simtrain.__all__:
        assert getattr(simtrain, name) is not None
    assert set(simtrain.__all__) <= set(dir(simtrain))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'TrainableModl'"):
        simtrain.TrainableModl  # noqa: B018


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_spells_out_what_is_public(room):
    module = importlib.import_module(f"simtrain.{room}")
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_simtrain_loads_nothing_heavy():
    assert not loaded_by("import simtrain") & {"torch", "lightning", "sentence_transformers", "omegaconf", "numpy"}


def test_the_serving_side_loads_neither_lightning_nor_extras():
    loaded = loaded_by("import simtrain.models, simtrain.encoders, simtrain.heads, simtrain.serving")
    assert not loaded & {"lightning", "pytorch_lightning", "sentence_transformers", "transformers", "qdrant_client"}
    assert not loaded & {"pytorch_metric_learning", "torchmetrics", "matplotlib"}


def test_help_needs_no_torch():
    assert "torch" not in loaded_by("import simtrain.cli")
