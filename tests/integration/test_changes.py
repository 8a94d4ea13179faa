"""Whatever is changed between two trainings of one model, the second trains on embeddings of what is there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from simtrain import CacheConfig, Runner, TrainableModel
from simtrain.data import GroupSimilarityDataLoader, SimilarityGroupSample
from tests.training.models import BagEncoder, group_model, group_samples

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Watching(lightning.pytorch.Callback):
    """Notes what the head is given."""

    def __init__(self) -> None:
        self.given: list[torch.Tensor] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        def note(module: Any, inputs: Any) -> None:
            self.given.append(inputs[0].detach().clone())

        self.handle = pl_module.model.head.register_forward_pre_hook(note)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.handle.remove()


def run(way: str, model: TrainableModel, loader: Any) -> torch.Tensor:
    """Train for an epoch; all embeddings that were trained on."""
    watching = Watching()
    if way == "runner":
        cfg = {"training": {"device": "cpu", "progress_bar": False}}
        Runner(model, 1, loader, callbacks=[watching], cfg=cfg).fit()
    else:
        lightning.Trainer(max_epochs=1, callbacks=[watching], accelerator="cpu", **QUIET).fit(model, loader)
    return torch.cat(watching.given)


def an_item(encoder: BagEncoder, data: list[SimilarityGroupSample]) -> None:
    data[3] = SimilarityGroupSample("changed", 1)


def the_order(encoder: BagEncoder, data: list[SimilarityGroupSample]) -> None:
    data.reverse()


def more_items(encoder: BagEncoder, data: list[SimilarityGroupSample]) -> None:
    data += [SimilarityGroupSample("new", 0), data[0]]


def fewer_items(encoder: BagEncoder, data: list[SimilarityGroupSample]) -> None:
    del data[2:6]


def a_weight(encoder: BagEncoder, data: list[SimilarityGroupSample]) -> None:
    encoder.linear.weight.data[0, 0] += 1


def a_buffer(encoder: BagEncoder, data: list[SimilarityGroupSample]) -> None:
    encoder.norm.running_mean[2] += 1


def a_hook(encoder: BagEncoder, data: list[SimilarityGroupSample]) -> None:
    encoder.linear.register_forward_hook(lambda module, inputs, output: 2 * output)


def the_preprocessing(encoder: BagEncoder, data: list[SimilarityGroupSample]) -> None:
    collate = encoder.get_collate_fn()
    encoder.get_collate_fn = lambda: lambda texts: collate([text[1:] for text in texts])


def the_numbers(encoder: BagEncoder, data: list[SimilarityGroupSample]) -> None:
    encoder.half().float()


CHANGES = [an_item, the_order, more_items, fewer_items, a_weight, a_buffer, a_hook, the_preprocessing, the_numbers]


@pytest.mark.filterwarnings("ignore:.*(many workers|_dataloader|LeafSpec|eval mode at the start|logging interval).*")
@pytest.mark.parametrize(("way", "kind"), [("runner", "cpu"), ("trainer", "disk")])
@pytest.mark.parametrize("change", CHANGES)
def test_a_second_training_sees_what_changed(tmp_path: Path, kind: str, way: str, change: Callable[..., None]) -> None:
    encoder = BagEncoder()
    model = group_model(encoders=encoder, cache=CacheConfig(kind, save_dir=tmp_path if kind == "disk" else None))
    loader = GroupSimilarityDataLoader(group_samples(12), batch_size=4)

    def expected() -> torch.Tensor:
        with torch.no_grad():
            return encoder.eval()(encoder.get_collate_fn()([sample.obj for sample in loader.dataset]))

    first, before = run(way, model, loader), expected()
    torch.testing.assert_close(first, before)
    change(encoder, loader.dataset)
    assert not torch.equal(expected(), before) or len(expected()) != len(before)
    torch.testing.assert_close(run(way, model, loader), expected())


@pytest.mark.slow
def test_rows_go_to_workers_that_are_started_anew() -> None:
    encoders = {"frozen": BagEncoder(), "trained": BagEncoder(trainable=True)}
    model = group_model(encoders=encoders, cache=CacheConfig("cpu"))
    loader = GroupSimilarityDataLoader(group_samples(12), batch_size=4, num_workers=2, multiprocessing_context="spawn")
    rows = torch.cat([features["frozen"] for features, _ in model.setup_dataloader(loader)])
    cache = model.cached._caches["frozen"]
    assert torch.equal(rows, cache.rows([sample.obj for sample in loader.dataset]))
