"""Models under a trainer: windows of accumulation, what is logged, settings and averages under the runner."""

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from simtrain import Runner
from simtrain.errors import ContractError
from simtrain.training import OptimWrapper
from tests.contract.seed_models import ToyModel, toy_batches
from tests.training.trained_toys import Inner, Manual, loader, sgd, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(toy_batches(5))


def twin_of(model):
    twin = type(model)()
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("window", [2, 3, 4])
@pytest.mark.parametrize("kind", [ToyModel, Manual])
def test_the_last_window_of_a_stream_counts_its_own_batches(kind, window):
    known, stream = sgd(kind()), None
    stream = sgd(twin_of(known))
    for model, data in ((known, loader()), (stream, DataLoader(Stream(), batch_size=None))):
        if kind is Manual:
            model.optim_wrapper_cfg = {"accumulative_counts": window}
            trainer(max_epochs=2).fit(model, data)
        else:
            trainer(max_epochs=2, accumulate_grad_batches=window).fit(model, data)
    torch.testing.assert_close(stream.linear.weight, known.linear.weight)


def test_a_run_with_a_wrapper_goes_on_in_the_middle_of_a_window(tmp_path):
    whole = Manual(accumulative_counts=4)
    first = Manual(accumulative_counts=4)
    first.load_state_dict(whole.state_dict())
    trainer(max_epochs=2).fit(whole, resumable())

    class Stop(lightning.pytorch.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 5:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")
                trainer.should_stop = True

    trainer(Stop(), max_epochs=2, enable_checkpointing=False).fit(first, resumable())
    resumed = Manual(accumulative_counts=4)
    trainer(max_epochs=2).fit(resumed, resumable(), ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    assert torch.equal(resumed.linear.weight, whole.linear.weight)


def resumable():
    from simtrain.data import ResumableDataLoader

    return ResumableDataLoader(toy_batches(7), batch_size=None)


@pytest.mark.parametrize("kind", [ToyModel, Manual])
def test_the_gradient_norm_is_logged_where_gradients_are_clipped(kind):
    clipped = {"training": {"grad_clip": 0.01}}
    model = sgd(kind())
    fitted = logged_by(Runner(model, 1, loader(1), cfg=clipped))
    reference = twin_of(model)
    assert fitted["train_grad_norm"] > 0.01
    assert "train_grad_norm" not in logged_by(Runner(reference, 1, loader(1)))


def logged_by(runner):
    class Watch(lightning.pytorch.Callback):
        def on_train_end(self, trainer, module):
            self.logged = dict(trainer.callback_metrics)

    watch = Watch()
    runner.callbacks = [watch]
    runner.fit()
    return watch.logged


def test_logging_the_same_name_in_another_way_is_answered_clearly():
    class Twice(ToyModel):
        def valid_step(self, batch):
            loss = self.compute_loss(**batch)["loss"]
            self.log("validation_loss", loss, prog_bar=False, on_step=True)
            return {"loss": loss}

    with pytest.raises(ContractError, match="Twice logs 'validation_loss' itself"):
        trainer().validate(Twice(), loader(1), verbose=False)


def test_a_batch_of_texts_weighs_as_many_items():
    class Texts(ToyModel):
        def valid_step(self, batch):
            return {"n": float(len(batch["texts"]))}

    batches = [{"texts": ["a"] * 9}, {"texts": ["b"]}]
    found = trainer().validate(Texts(), DataLoader(batches, batch_size=None), verbose=False)[0]
    assert found["validation_n"] == pytest.approx((9 * 9 + 1) / 10)


def test_settings_of_a_runner_are_not_left_in_the_model():
    model = Manual()
    model.make_optimizer = None
    for counts in (4, 1):
        seen = []

        def step(batch, optim_wrapper, seen=seen):
            seen.append(optim_wrapper.accumulative_counts)
            return {}

        model.train_step = step
        Runner(model, 1, loader(1), cfg={"training": {"gradient_accumulation": counts}}).fit()
        assert seen == [counts]
    assert model.optim_wrapper_cfg == {}


def test_checkpoints_of_averaged_weights_are_saved_under_the_runner(tmp_path):
    saving = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "last")
    model = ToyModel()
    Runner(model, 2, loader(), cfg={"training": {"ema": {"decay": 0.5}}}, callbacks=[saving]).fit()
    loaded = ToyModel()
    assert loaded.load_checkpoint(str(tmp_path / "last.ckpt")) == []
    torch.testing.assert_close(loaded.linear.weight, model.linear.weight)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_weights_are_averaged_in_every_precision(precision):
    model = ToyModel()
    before = model.linear.weight.clone()
    cfg = {"optimizer": {"type": "SGD", "lr": 0.1}, "training": {"precision": precision, "ema": {"decay": 0.999}}}
    batches = [
        {k: v.to(torch.bfloat16 if "true" in precision else v.dtype) for k, v in b.items()} for b in toy_batches(8)
    ]
    if precision == "64-true":
        batches = [{k: v.double() for k, v in b.items()} for b in batches]
    Runner(model, 4, DataLoader(batches, batch_size=None), cfg=cfg).fit()
    assert not torch.equal(model.linear.weight.float(), before)


def test_two_updates_a_batch_are_averaged_too():
    class Twice(Manual):
        def train_step(self, batch, optim_wrapper):
            super().train_step(batch, optim_wrapper)
            return super().train_step(batch, optim_wrapper)

    from simtrain.training.averaging import WeightEMA

    callback = WeightEMA(0.5, every_n_steps=2)
    trainer(callback, max_epochs=1, enable_checkpointing=False).fit(Twice(), loader(4))
    assert int(callback._average_model.n_averaged) == 4


def test_an_optim_wrapper_holds_back_synchronisation_until_the_update():
    class Counting(Inner):
        blocked = 0

        def no_sync(self):
            from contextlib import contextmanager

            @contextmanager
            def block():
                type(self).blocked += 1
                yield

            return block()

    model = Counting()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=3)
    for _ in range(6):
        model.train_step({"x": torch.ones(2, 2)}, wrapper)
    assert Counting.blocked == 4
