"""Models under a trainer: schedules, windows, norms, checkpoints, mixins and what users override."""

import copy
import pickle

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from simtrain import BaseModel, Runner
from simtrain.data import PairsSimilarityDataLoader
from simtrain.errors import ConfigError, ContractError
from simtrain.training import OptimWrapper
from simtrain.training.schedules import linear
from simtrain.training.step_contract import call_step
from tests.contract.seed_models import ToyModel, toy_batches
from tests.training.models import pair_model, pair_samples

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
]


class Manual(ToyModel):
    """Updates by the wrapper that it asks for."""

    def __init__(self, **cfg):
        super().__init__()
        self.optim_wrapper_cfg = cfg
        self.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)

    def train_step(self, batch, optim_wrapper):
        optim_wrapper.update_params(self.compute_loss(**batch)["loss"])
        return {}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(toy_batches(5))


def trainer(*callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": bool(callbacks), "enable_progress_bar": False}
    return lightning.Trainer(
        accelerator="cpu", enable_model_summary=False, callbacks=list(callbacks), **{**quiet, **options}
    )


def loader(n=5):
    return DataLoader(toy_batches(n), batch_size=None)


def sgd(model):
    model.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)
    return model


def twin_of(model):
    twin = type(model)()
    twin.load_state_dict(model.state_dict())
    return twin


# ---------------------------------------------------------------------------------------- windows


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


# ---------------------------------------------------------------------------------------- schedules


class TwoOptimizers(BaseModel):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 1), nn.Linear(2, 1)
        self.rates = []

    def forward(self, x, mode="tensor"):
        return {"loss": self.a(x) + self.b(x)}

    def train_step(self, batch, optim_wrapper):
        for wrapper, layer in zip(optim_wrapper, (self.a, self.b), strict=True):
            wrapper.update_params(layer(batch["x"]).square().mean())
        self.rates.append([wrapper.get_lr()["lr"][0] for wrapper in optim_wrapper])
        return {}

    def configure_optimizers(self):
        optimizers = [torch.optim.SGD(layer.parameters(), lr=1.0) for layer in (self.a, self.b)]
        halve = torch.optim.lr_scheduler.LambdaLR(optimizers[0], lambda step: 0.5**step)
        slower = torch.optim.lr_scheduler.LambdaLR(optimizers[1], lambda step: 0.1**step)
        schedules = [
            {"scheduler": halve, "interval": "step"},
            {"scheduler": slower, "interval": "step", "frequency": 2},
        ]
        return optimizers, schedules


def test_each_schedule_follows_its_own_optimizer():
    model = TwoOptimizers()
    trainer(max_epochs=1).fit(model, DataLoader([{"x": torch.ones(2, 2)}] * 4, batch_size=None))
    assert [rate for rate, _ in model.rates] == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    assert [rate for _, rate in model.rates] == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_schedules_by_epoch_are_stepped_for_a_step_with_a_wrapper():
    rates = []

    class ByEpoch(Manual):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

        def on_train_epoch_start(self):
            rates.append(self.optimizers().param_groups[0]["lr"])

    trainer(max_epochs=3).fit(ByEpoch(), loader(2))
    assert rates == pytest.approx([1.0, 0.5, 0.25])


@pytest.mark.parametrize(("options", "steps"), [({"max_epochs": 2}, 4), ({"max_epochs": 2, "max_steps": 3}, 3)])
def test_a_schedule_is_told_the_number_of_updates(options, steps):
    told = []
    model = Manual(accumulative_counts=4)
    model.make_scheduler = lambda optimizer, total: (
        told.append(total) or torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    )
    trainer(**options).fit(model, loader(5))
    assert told == [steps]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 3}, 15),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 9),
        ({"max_epochs": 3, "limit_train_batches": 3}, 9),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 4),
        ({"max_epochs": -1, "max_steps": 7}, 7),
    ],
)
def test_the_number_of_updates_is_that_of_the_trainer(options, steps):
    told = []
    model = sgd(ToyModel())
    model.make_scheduler = lambda optimizer, total: (
        told.append(total) or torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    )
    run = trainer(**options)
    run.fit(model, loader(5))
    assert told == [steps] == [run.global_step]


def test_a_run_with_a_schedule_goes_on_in_the_middle_of_an_epoch(tmp_path):
    class Stop(lightning.pytorch.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 9:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")
                trainer.should_stop = True

    def made():
        torch.manual_seed(0)
        model = pair_model(scheduler=linear, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
        return model, PairsSimilarityDataLoader(pair_samples(24), batch_size=4, shuffle=True)

    whole, data = made()
    trainer(max_epochs=3).fit(whole, data)
    first, data = made()
    trainer(Stop(), max_epochs=3, enable_checkpointing=False).fit(first, data)
    resumed, data = made()
    trainer(max_epochs=3).fit(resumed, data, ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    for name, value in whole.model.head.state_dict().items():
        assert torch.equal(resumed.model.head.state_dict()[name], value), name


# ---------------------------------------------------------------------------------------- what is logged


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


# ---------------------------------------------------------------------------------------- mixins and overrides


class ValMixin:
    def val_step(self, batch):
        return {"from": "mixin"}


class TestMixin:
    __test__ = False

    def test_step(self, batch, k=5):  # noqa: PT028
        assert k == 5
        return {"loss": torch.tensor(float(k))}


def test_steps_of_mixins_count():
    model = type("Mixed", (ValMixin, ToyModel), {})()
    assert model.valid_step(None) == model.val_step(None) == {"from": "mixin"}
    steps = {name: (lambda self, *a: {}) for name in ("train_step", "test_step", "compute_loss")}
    assert type("Whole", (ValMixin, BaseModel), steps)().valid_step(None) == {"from": "mixin"}
    tested = type("Tested", (TestMixin, ToyModel), {})()
    assert trainer().test(tested, [loader(1), loader(1)], verbose=False)[1] == {"test_loss/dataloader_idx_1": 5.0}


def test_a_forgotten_super_is_named():
    class Forgot(BaseModel):
        def __init__(self):
            nn.Module.__init__(self)

        def forward(self, x, mode="tensor"):
            return x

    with pytest.raises(ContractError, match=r"Forgot.__init__ has to call super\(\).__init__\(\)"):
        Forgot()


def test_hooks_may_be_overridden_without_super():
    class Bare(Manual):
        def on_fit_start(self):
            self.started = True

        def on_before_optimizer_step(self, optimizer):
            self.stepped = True

    model, twin = Bare(clip_grad={"max_norm": 0.01}), Manual(clip_grad={"max_norm": 0.01})
    twin.load_state_dict(model.state_dict())
    for each in (model, twin):
        trainer(max_epochs=1).fit(each, loader())
    assert model.started
    assert model.stepped
    assert torch.equal(model.linear.weight, twin.linear.weight)


def test_a_model_can_be_pickled_and_copied_after_training():
    model = Manual()
    model.make_optimizer = None
    Runner(model, 1, loader()).fit()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.linear.weight, model.linear.weight)


def test_a_run_after_one_that_broke_off_uses_its_own_optimizer():
    class Breaking(Manual):
        breaks = True

        def train_step(self, batch, optim_wrapper):
            super().train_step(batch, optim_wrapper)
            if self.breaks:
                raise ValueError("on purpose")
            return {"rate": optim_wrapper.get_lr()["lr"][0]}

    model = Breaking()
    with pytest.raises(ValueError, match="on purpose"):
        trainer(max_epochs=1).fit(model, loader())
    model.breaks, model.make_optimizer = False, lambda parameters: torch.optim.SGD(parameters, lr=0.03)
    again = trainer(max_epochs=1)
    again.fit(model, loader())
    assert float(again.callback_metrics["train_rate"]) == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda *args, **kwargs: (args, kwargs), (("batch",), {})),
        (lambda batch, batch_idx, /: batch_idx, 3),
        (lambda batch, batch_idx, dataloader_idx, /: (batch_idx, dataloader_idx), (3, 1)),
    ],
)
def test_wrapped_and_positional_steps_get_what_they_take(step, expected):
    assert call_step(step, "batch", batch_idx=3, dataloader_idx=1) == expected


def test_frozen_norms_stay_in_eval_mode_when_their_layer_is_exchanged():
    class Normed(ToyModel):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

    model = Normed().freeze_parameters(regex="^norm", norm_eval=True)
    model.norm = nn.SyncBatchNorm(4).requires_grad_(False)
    assert not model.train().norm.training


# ---------------------------------------------------------------------------------------- the runner


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


# ---------------------------------------------------------------------------------------- configs


class Inner(BaseModel):
    def __init__(self, size=2):
        super().__init__()
        self.layer = nn.Linear(size, 1)

    def forward(self, x, mode="tensor"):
        return {"loss": self.layer(x)}


class Outer(ToyModel):
    def __init__(self, part=None, parts: dict[str, nn.Module] | None = None, plain: dict | None = None, **more):
        super().__init__()
        self.part, self.named, self.plain, self.more = part, parts, plain, more


class Forwarding(Inner):
    def __init__(self, **words):
        super().__init__(**words)


@pytest.fixture
def registered():
    from simtrain import registry

    registry.models.register_module("InnerOfTest")(Inner)


@pytest.mark.usefixtures("registered")
def test_sub_configs_of_every_kind_are_built(tmp_path):
    from argparse import Namespace

    torch.save({"layer.weight": torch.full((1, 3), 7.0), "layer.bias": torch.zeros(1)}, tmp_path / "w.pt")
    inner = {"type": "InnerOfTest", "size": 3}
    assert Outer.from_cfg(Namespace(part=Namespace(**inner))).part.layer.in_features == 3
    assert Outer.from_cfg({"part": (inner, [inner])}).part[1][0].layer.in_features == 3
    assert Outer.from_cfg({"parts": {"a": inner}}).named["a"].layer.in_features == 3
    assert Outer.from_cfg({"plain": inner}).plain == inner
    loaded = Outer.from_cfg({"part": {**inner, "pretrained": str(tmp_path / "w.pt")}}).part
    assert loaded.layer.weight.tolist() == [[7.0, 7.0, 7.0]]
    assert Inner.from_cfg({"type": Inner, "size": 4}).layer.in_features == 4


def test_typos_are_found_through_kwargs():
    with pytest.raises(ConfigError, match="Forwarding has no setting 'sizee'; did you mean 'size'"):
        Forwarding.from_cfg({"sizee": 3})
    with pytest.raises(ConfigError, match="names no setting 'init_cgf'"):
        Forwarding.from_cfg({"init_cgf": {"type": "Xavier"}})


def test_incomplete_and_odd_values_are_refused():
    from omegaconf import OmegaConf

    with pytest.raises(ConfigError, match="the model's config is not complete"):
        Inner.from_cfg(OmegaConf.create({"size": "???"}))
    with pytest.raises(ConfigError, match="allow_missing_keys should be true or false, got 'false'"):
        Inner.from_cfg({"allow_missing_keys": "false"})


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
