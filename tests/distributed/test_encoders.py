"""Two processes keep hard classes up to date together, and train the last layer of a transformer."""

from pathlib import Path

import pytest
import torch

from tests.distributed.ranks import run_ranks

SCRIPT = Path(__file__).with_name("train_encoders.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    pytest.importorskip("sentence_transformers")
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(SCRIPT, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("kind", ["cached", "plain"])
def test_all_processes_sample_hard_classes_alike(ranks, kind):
    left, right = (result[kind] for result in ranks)
    assert torch.equal(left["means"], right["means"])
    assert not torch.equal(left["means"][0], left["means"][-1]), "they are taken anew for each epoch"
    assert len(left["seen"]) == len(right["seen"])
    for mine, other in zip(left["seen"], right["seen"], strict=True):
        # A joint batch of the two has four groups of two items each.
        counts = torch.bincount(torch.tensor(mine + other), minlength=11)
        assert sorted(counts[counts > 0].tolist()) == [2] * 4
    for name, value in left["weight"].items():
        assert torch.equal(right["weight"][name], value)


def test_the_last_layer_of_a_transformer_is_trained_by_two_processes(ranks):
    left, right = (result["transformer"] for result in ranks)
    # No parameter is left without a gradient, which several processes take as an error.
    assert set(left["changed"]) <= set(left["trained"])
    assert len(left["changed"]) > len(left["trained"]) / 2
    assert all(torch.equal(right["weights"][name], value) for name, value in left["weights"].items())
