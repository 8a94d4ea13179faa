"""Lightning leaves loaders with these samplers as they are, and saves and loads their place."""

import warnings

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.data import _update_dataloader
from torch.utils.data import DataLoader, DistributedSampler

from simtrain.data import GroupSimilarityDataLoader, PKSampler
from simtrain.data.loaders import with_collate
from tests.distributed.train_samplers import LABELS, SAMPLES, Recorder, make_loader, make_trainer

# Lightning's advice on workers, validation and short epochs is not what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*val_dataloader.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`.*:UserWarning"),
]


def loader_of(sampler, workers=0):
    torch.manual_seed(1)
    return make_loader(sampler, 6, workers)


def seen_by(loader, **words):
    model = Recorder()
    trainer = make_trainer(1, **words)
    trainer.fit(model, loader)
    return [batch for _, batch in model.seen]


@pytest.mark.parametrize("sampler", ["shuffle", "pk", "hard"])
def test_a_trainer_of_several_processes_uses_the_loader_itself(sampler):
    trainer = make_trainer(2)
    for loader in (loader_of(sampler), with_collate(loader_of(sampler), list)):
        used = trainer._data_connector._prepare_dataloader(loader, shuffle=True, mode=RunningStage.TRAINING)
        assert used is loader
    plain = DataLoader(SAMPLES, batch_size=6, sampler=PKSampler(LABELS, batch_size=6, per_group=2))
    assert trainer._data_connector._prepare_dataloader(plain, shuffle=True, mode=RunningStage.TRAINING) is plain


def test_a_loader_in_order_is_shared_out_by_lightning():
    trainer = make_trainer(2)
    loader = GroupSimilarityDataLoader(SAMPLES, batch_size=6)
    used = trainer._data_connector._prepare_dataloader(loader, shuffle=False, mode=RunningStage.VALIDATING)
    assert type(used) is GroupSimilarityDataLoader
    assert type(used.sampler) is DistributedSampler
    assert used.sampler.num_replicas == 2
    assert sum(len(batch.objects) for batch in used) == 38


def test_a_loader_can_be_made_anew_by_lightning():
    loader = loader_of("shuffle")
    again = _update_dataloader(loader, loader.sampler)
    assert (type(again), again.sampler, again.batch_size) == (type(loader), loader.sampler, 6)
    predicting = _update_dataloader(loader, loader.sampler, mode=RunningStage.PREDICTING)
    assert len(list(predicting)) == 13


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sampler", ["shuffle", "pk"])
def test_fitting_twice_with_one_loader(sampler, workers):
    loader = loader_of(sampler, workers)
    expected = [list(batch.objects) for epoch in range(3) for batch in loader]
    assert [seen_by(loader) for _ in range(2)] == [expected, expected]


class StopAfter(Callback):
    """Saves and ends the run after a number of steps."""

    def __init__(self, steps, path):
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer, module, *rest):
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            raise StopError


class StopError(Exception):
    pass


@pytest.mark.parametrize(("sampler", "workers"), [("shuffle", 0), ("shuffle", 2), ("hard", 0), ("pk", 0)])
def test_a_stopped_run_sees_the_rest_and_ends_with_the_same_weights(tmp_path, sampler, workers):
    whole = Recorder()
    make_trainer(1).fit(whole, loader_of(sampler))
    per_epoch = len(loader_of(sampler))
    for steps in (1, per_epoch - 1, per_epoch, per_epoch + 1, 2 * per_epoch + 3):
        stopped, resumed = Recorder(), Recorder()
        trainer = make_trainer(1)
        trainer.callbacks.append(StopAfter(steps, tmp_path / "run.ckpt"))
        with pytest.raises(StopError):
            trainer.fit(stopped, loader_of(sampler, workers))
        torch.manual_seed(steps)
        make_trainer(1).fit(resumed, make_loader(sampler, 6, workers), ckpt_path=tmp_path / "run.ckpt")
        assert stopped.seen == whole.seen[:steps]
        assert resumed.seen == whole.seen[steps:]
        assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.parametrize("words", [{}, {"limit_train_batches": 4}])
def test_a_run_goes_on_after_a_whole_epoch(tmp_path, words):
    whole, stopped, resumed = Recorder(), Recorder(), Recorder()
    trainer(3, **words).fit(whole, loader_of("shuffle"))
    saving = ModelCheckpoint(tmp_path, filename="end", save_top_k=-1)
    trainer(2, callbacks=[saving], **words).fit(stopped, loader_of("shuffle"))
    # Lightning loads no loader's state where an epoch has ended: the seed has to be the same, the epoch is set.
    trainer(3, **words).fit(resumed, loader_of("shuffle"), ckpt_path=saving.best_model_path)
    assert stopped.seen + resumed.seen == whole.seen


class SaveAfterValidation(Callback):
    """Saves at the end of each validation, before the next training step."""

    def __init__(self, folder):
        self.folder = folder

    def on_validation_end(self, trainer, module):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.parametrize("sampler", ["shuffle", "pk"])
def test_validation_with_the_same_loader_does_not_disturb_training(tmp_path, sampler):
    class Validated(Recorder):
        def validation_step(self, batch, batch_idx):
            pass

    loader, expected = loader_of(sampler), Recorder()
    make_trainer(1).fit(expected, loader_of(sampler))
    model = Validated()
    trainer(3, val_check_interval=4, callbacks=[SaveAfterValidation(tmp_path)]).fit(model, loader, loader)
    assert model.seen == expected.seen
    for step in (4, 8):
        resumed = Recorder()
        make_trainer(1).fit(resumed, make_loader(sampler, 6), ckpt_path=tmp_path / f"{step}.ckpt")
        assert resumed.seen == expected.seen[step:]


def trainer(epochs, callbacks=(), **words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lightning.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
            callbacks=list(callbacks),
            **words,
        )
