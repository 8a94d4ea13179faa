"""Whatever is changed between two trainings of one model, the second trains on embeddings of what is there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from simtrain import CacheConfig, Runner, TrainableModel
from simtrain.data import GroupSimilarityDataLoader, SimilarityGroupSample
from simtrain.errors import CacheError
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


class Moving(torch.utils.data.Dataset[SimilarityGroupSample]):
    """Other items in each epoch; in another order or all new."""

    def __init__(self, new: bool) -> None:
        self.epoch, self.new = 0, new

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: int) -> SimilarityGroupSample:
        number = chr(97 + self.epoch) if self.new else ""
        return SimilarityGroupSample(f"{'abcdefgh'[(row + self.epoch) % 8]}{number}", row % 2)


class Between(lightning.pytorch.Callback):
    """Calls a function at the end of each epoch."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        self.change = change

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.change(pl_module)


def fit(way: str, model: TrainableModel, loader: Any, change: Callable[[Any], None], epochs: int = 2) -> torch.Tensor:
    watching = Watching()
    callbacks: Any = [watching, Between(change)]
    if way == "runner":
        cfg = {"training": {"device": "cpu", "progress_bar": False}}
        Runner(model, epochs, loader, callbacks=callbacks, cfg=cfg).fit()
    else:
        lightning.Trainer(max_epochs=epochs, callbacks=callbacks, accelerator="cpu", **QUIET).fit(model, loader)
    return torch.cat(watching.given)


@pytest.mark.filterwarnings("ignore:.*(many workers|_dataloader|LeafSpec|eval mode at the start|logging interval).*")
@pytest.mark.parametrize("new", [True, False])
def test_data_that_change_from_epoch_to_epoch_are_noticed(new: bool) -> None:
    data = Moving(new)
    model = group_model(encoders=BagEncoder(), cache=CacheConfig("cpu"))

    def go_on(_: Any) -> None:
        data.epoch += 1

    expected = (
        "has no embedding of" if new else "another item 0 or 7 than when its loader was prepared; prepare it again"
    )
    with pytest.raises(CacheError, match=expected):
        fit("runner", model, GroupSimilarityDataLoader(data, batch_size=8), go_on)


@pytest.mark.filterwarnings("ignore:.*(many workers|_dataloader|LeafSpec|eval mode at the start|logging interval).*")
def test_weights_that_are_loaded_within_a_run_are_noticed() -> None:
    def load(model: Any) -> None:
        encoder = model.model.encoders["default"]
        encoder.load_state_dict({name: 2 * weight for name, weight in encoder.state_dict().items()})

    encoder, samples = BagEncoder(), group_samples(8)
    model = group_model(encoders=encoder, cache=CacheConfig("cpu"))
    loader = GroupSimilarityDataLoader(samples, batch_size=8)
    expected = []

    def noting(model: Any) -> None:
        expected.append(encoder(encoder.get_collate_fn()([sample.obj for sample in samples])))
        load(model)

    given = fit("trainer", model, loader, noting)
    torch.testing.assert_close(given, torch.cat(expected))
    assert not torch.allclose(*expected)
    with pytest.raises(CacheError, match=r"a loader was prepared .*, and an encoder has changed since"):
        fit("runner", group_model(encoders=encoder, cache=CacheConfig("cpu")), loader, load)


@pytest.mark.slow
def test_rows_go_to_workers_that_are_started_anew() -> None:
    encoders = {"frozen": BagEncoder(), "trained": BagEncoder(trainable=True)}
    model = group_model(encoders=encoders, cache=CacheConfig("cpu"))
    loader = GroupSimilarityDataLoader(group_samples(12), batch_size=4, num_workers=2, multiprocessing_context="spawn")
    rows = torch.cat([features["frozen"] for features, _ in model.setup_dataloader(loader)])
    cache = model.cached._caches["frozen"]
    assert torch.equal(rows, cache.rows([sample.obj for sample in loader.dataset]))
