"""CachedTrainLoop takes the very steps of TrainLoop: weights, figures, hooks and checkpoints are equal bit for bit."""

import logging
import warnings
from functools import partial, partialmethod

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import BatchSampler, RandomSampler

from simtrain import AttachedMetric, CacheConfig, CacheType, Runner, TrainableModel, XbmConfig
from simtrain.cache.indexed_loader import IndexedDataLoader, SampleNumbers
from simtrain.data import (
    GroupSimilarityDataLoader,
    NoDuplicatesSampler,
    PairsSimilarityDataLoader,
    PKSampler,
    ShuffleSampler,
    SimilarityTripletSample,
    TripletSimilarityDataLoader,
)
from simtrain.errors import ConfigError, DataError
from simtrain.heads import SkipConnectionHead
from simtrain.losses import ContrastiveLoss, SupConLoss, TripletLoss
from simtrain.metrics import RetrievalPrecision
from simtrain.runner import CachedTrainLoop, TrainLoop
from simtrain.runner.cached_epoch_loop import PARTS
from simtrain.runner.lean_step import LeanStep
from simtrain.training.cached_step import CachedStep
from tests.training.models import BagEncoder, group_model, group_samples, pair_model, pair_samples

CPU = CacheConfig(CacheType.CPU)
slow = partial(pytest.param, marks=pytest.mark.slow)
N = 44  # in batches of 4: 11 an epoch, a short last window of accumulation


class Record(Callback):
    """What is to be seen at each hook: counters, figures, outputs."""

    def __init__(self):
        self.seen = []

    def note(self, name, trainer, *more):
        progress = trainer.fit_loop.epoch_loop.batch_progress
        counts = (trainer.global_step, trainer.current_epoch, progress.current.ready, progress.total.completed)
        figures = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
        self.seen.append((name, counts, figures, trainer.progress_bar_metrics.copy(), *more))

    def on_train_epoch_end(self, trainer, module):
        self.note("train epoch end", trainer)

    def on_validation_end(self, trainer, module):
        self.note("validation end", trainer)

    def on_train_end(self, trainer, module):
        self.note("train end", trainer)


class RecordBatches(Record):
    """The same with all hooks of a batch, their arguments and the weights' gradients."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.note("batch start", trainer, batch_idx, [part.tolist() for part in batch[0].values()])

    def on_before_zero_grad(self, trainer, module, optimizer):
        self.note("zero grad", trainer)

    def on_before_backward(self, trainer, module, loss):
        self.note("before backward", trainer, float(loss.detach()))

    def on_after_backward(self, trainer, module):
        self.note("after backward", trainer, [float(p.grad.sum()) for p in module.parameters() if p.grad is not None])

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.note("before step", trainer)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        shown = {key: float(value) for key, value in outputs.items()}
        self.note("batch end", trainer, batch_idx, shown, trainer.fit_loop.epoch_loop._batches_that_stepped)


def loader_of(kind, **options):
    options = {"batch_size": 4, **options}
    if kind == "pairs":
        return PairsSimilarityDataLoader(pair_samples(N), **options)
    if kind == "triplets":
        pairs = pair_samples(N)
        samples = [
            SimilarityTripletSample(one.obj_a, one.obj_b, [two.obj_b] * (1 + place % 2))
            for place, (one, two) in enumerate(zip(pairs, reversed(pairs), strict=True))
        ]
        return TripletSimilarityDataLoader(samples, **options)
    return GroupSimilarityDataLoader(group_samples(N, 8), **options)


def run(loop, make_model, make_loader, epochs=2, valid=None, training=None, callbacks=(), **options):
    torch.manual_seed(5)
    model = make_model()
    torch.manual_seed(6)
    cfg = {"training": {"loop": loop, "device": "cpu", **(training or {})}}
    runner = Runner(model, epochs, make_loader(), valid and valid(), cfg=cfg, callbacks=callbacks, **options)
    runner.fit()
    return model


def noted_step(step, original, taken, loop, batch):
    taken.append(loop)
    original(step, batch)


def assert_same(make_model, make_loader, record=Record, lean=True, **options):
    """Both loops leave the same weights, optimizer-step counts and figures; the cached one did take lean steps."""
    taken = []
    models, records = {}, {}
    for loop in ("trainer", "cached"):
        records[loop] = record()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LeanStep, "_train_on", partialmethod(noted_step, LeanStep._train_on, taken, loop))
            models[loop] = run(loop, make_model, make_loader, callbacks=[records[loop]], **options)
    assert set(taken) == ({"cached"} if lean else set())
    states = [models[loop].state_dict() for loop in ("trainer", "cached")]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][name]), name
        else:
            assert value == states[1][name], name
    assert records["trainer"].seen == records["cached"].seen
    return models["cached"], records["cached"]


def dropout_head(size):
    return SkipConnectionHead(size, dropout=0.2)


def groups(**parts):
    return partial(group_model, cache=CPU, **parts)


def pk(batch_size=4):
    samples = group_samples(N, 8)
    sampler = PKSampler([sample.group for sample in samples], batch_size=batch_size, per_group=2)
    return GroupSimilarityDataLoader(samples, batch_size=batch_size, sampler=sampler)


LOADERS = {
    "in order": partial(loader_of, "groups"),
    "shuffled": partial(loader_of, "groups", shuffle=True),
    "drop_last": partial(loader_of, "groups", shuffle=True, batch_size=6, drop_last=True),
    "workers": partial(loader_of, "groups", shuffle=True, num_workers=2),
    "PK": pk,
    "torch's own": lambda: loader_of("groups", sampler=RandomSampler(range(N))),
    "batch sampler": lambda: GroupSimilarityDataLoader(
        group_samples(N, 8), batch_sampler=BatchSampler(RandomSampler(range(N)), 5, False)
    ),
}


@pytest.mark.parametrize("name", ["in order", "workers", "PK", "batch sampler", *map(slow, LOADERS)])
def test_all_samplers_and_numbers_of_workers(name):
    assert_same(groups(head=dropout_head), LOADERS[name])


HARD, SEMI_HARD = TripletLoss(margin=0.3, mining="hard"), TripletLoss(mining="semi_hard")
XBM = XbmConfig(buffer_size=30, start_iteration=3)


@pytest.mark.parametrize(
    ("loss", "xbm"),
    [
        (HARD, None),
        (SupConLoss(), XBM),
        *(slow(loss, None) for loss in (SupConLoss(), SEMI_HARD)),
        *(slow(loss, XBM) for loss in (HARD, SEMI_HARD)),
    ],
)
def test_group_losses_with_and_without_a_memory(loss, xbm):
    assert_same(groups(loss=loss, xbm=xbm), LOADERS["PK"])


def test_pairs_without_duplicates():
    def loader():
        samples = pair_samples(N)
        return PairsSimilarityDataLoader(samples, batch_size=4, sampler=NoDuplicatesSampler(samples, batch_size=4))

    assert_same(partial(pair_model, cache=CPU), loader)


def test_triplets_of_unequal_lengths():
    assert_same(partial(pair_model, cache=CPU, loss=ContrastiveLoss()), partial(loader_of, "triplets", shuffle=True))
    assert_same(groups(), partial(loader_of, "triplets", shuffle=True))


def schedule(optimizer, total):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=total)


@pytest.mark.parametrize(
    "training",
    [
        slow({"gradient_accumulation": 3}),
        slow({"grad_clip": 0.01}),
        {"gradient_accumulation": 3, "grad_clip": 0.01, "precision": "bf16-mixed"},
        slow({"precision": "bf16-mixed"}),
        {"ema": {"decay": 0.9}},
    ],
    ids=str,
)
def test_the_training_section(training):
    _, record = assert_same(
        groups(head=dropout_head, scheduler=schedule),
        LOADERS["shuffled"],
        valid=partial(loader_of, "groups", batch_size=11),
        training=training,
    )
    assert ("train_grad_norm" in record.seen[-1][2]) == ("grad_clip" in training)


@pytest.mark.parametrize("window", [1, 3])
def test_hooks_of_each_batch_are_called_as_lightning_calls_them(window):
    _, record = assert_same(
        groups(scheduler=schedule),
        LOADERS["shuffled"],
        record=RecordBatches,
        valid=partial(loader_of, "groups", batch_size=11),
        training={"gradient_accumulation": window, "grad_clip": 0.1},
    )
    names = [seen[0] for seen in record.seen]
    assert names.count("batch end") == 22
    assert names.count("before step") == 2 * -(-11 // window)
    assert names.count("validation end") == 2


class OwnHooks(TrainableModel):
    """A model that watches its own steps, logs from them and adds figures."""

    moved = 0

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.log("own", float(batch_idx + 100 * self.moved), prog_bar=True)

    def train_step(self, data_batch, *args, **kwargs):
        self.log("inside", 2.0, on_step=True, on_epoch=True, batch_size=3)
        return {**super().train_step(data_batch, *args, **kwargs), "twice": torch.tensor(2.0)}

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.moved += self.trainer.training
        return batch


def test_hooks_of_the_model_and_metrics():
    def model():
        metric = AttachedMetric("precision", RetrievalPrecision(k=1))
        return OwnHooks(encoders=BagEncoder(), head=SkipConnectionHead, loss=SupConLoss(), cache=CPU, metrics=metric)

    _, record = assert_same(model, LOADERS["PK"], valid=pk, record=RecordBatches)
    assert {"own", "inside_epoch", "train_twice", "train_loss"} <= record.seen[-1][2].keys()


class Stop(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step >= self.step


def with_trainer_options(monkeypatch, **more):
    original = lightning.Trainer

    def make(**options):
        return original(**{**options, **more})

    monkeypatch.setattr(lightning, "Trainer", make)


@pytest.mark.parametrize(
    "more",
    [
        {"max_steps": 7},
        slow({"max_steps": 11}),
        slow({"max_steps": 16, "accumulate_grad_batches": 1}),
        {"limit_train_batches": 5},
        slow({"max_time": "00:00:10:00"}),
        {"fast_dev_run": False, "overfit_batches": 4},
    ],
    ids=str,
)
def test_options_of_the_trainer(monkeypatch, more):
    with_trainer_options(monkeypatch, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(groups(), LOADERS["shuffled"], valid=partial(loader_of, "groups", batch_size=11), epochs=3)


@pytest.mark.parametrize(
    "training",
    [
        {"valid_begin_iter": 3, "valid_interval_iter": 3},
        {"valid_begin_iter": 4, "valid_interval_iter": 5, "valid_interval_epoch": None},
        slow({"valid_begin_epoch": 2, "valid_interval_epoch": 2, "max_steps": 15}),
        slow({"valid_begin_iter": 1, "valid_interval_iter": 1}),
    ],
    ids=str,
)
def test_validation_by_epochs_and_batches(training):
    valid = partial(loader_of, "groups", batch_size=11)
    # Where each batch is validated, there is no lean step to take.
    lean = training.get("valid_interval_iter") != 1
    assert_same(groups(), LOADERS["shuffled"], lean=lean, valid=valid, epochs=3, training=training)


def test_stopping_in_the_middle_of_an_epoch():
    stopped = {}
    for loop in ("trainer", "cached"):
        record = RecordBatches()
        valid = partial(loader_of, "groups")
        model = run(loop, groups(), LOADERS["shuffled"], callbacks=[Stop(5), record], valid=valid, epochs=3)
        stopped[loop] = (record.seen, [p.tolist() for p in model.model.head.parameters()])
    assert stopped["trainer"] == stopped["cached"]
    assert [seen[0] for seen in stopped["cached"][0]].count("batch end") == 5


def test_early_stopping_and_timer():
    assert_same_with(lambda: [EarlyStopping("validation_loss", patience=1, min_delta=10.0)])
    assert_same_with(lambda: [Timer(duration={"hours": 1})])


def assert_same_with(callbacks):
    weights = []
    for loop in ("trainer", "cached"):
        model = run(
            loop, groups(), LOADERS["shuffled"], callbacks=callbacks(), valid=partial(loader_of, "groups"), epochs=5
        )
        weights.append([p.tolist() for p in model.model.head.parameters()])
    assert weights[0] == weights[1]


@pytest.mark.parametrize("every", [1, 4])
def test_loggers_get_the_same_lines(tmp_path, monkeypatch, every):
    with_trainer_options(monkeypatch, log_every_n_steps=every)
    lines = []
    for loop in ("trainer", "cached"):
        logs = CSVLogger(tmp_path / loop, name="run", version=0)
        run(
            loop,
            groups(),
            LOADERS["shuffled"],
            valid=partial(loader_of, "groups", batch_size=11),
            logger=logs,
            training={"grad_clip": 0.1},
        )
        lines.append((tmp_path / loop / "run" / "version_0" / "metrics.csv").read_text())
    assert lines[0] == lines[1]
    assert lines[0].count("\n") > 22 // every


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # on purpose
@pytest.mark.parametrize(("steps", "workers"), [(4, 0), slow(15, 2), slow(4, 2), slow(11, 0), slow(11, 2), slow(15, 0)])
def test_a_run_resumed_from_the_middle_of_an_epoch_ends_with_the_same_weights(tmp_path, monkeypatch, workers, steps):
    make_loader = partial(loader_of, "groups", shuffle=True, num_workers=workers)
    make_model = groups(scheduler=schedule, xbm=XbmConfig(buffer_size=30, start_iteration=2))
    whole = run("trainer", make_model, make_loader, epochs=3)
    for loop in ("trainer", "cached"):
        saving = ModelCheckpoint(tmp_path / loop, filename="{step}", every_n_train_steps=steps, save_top_k=-1)
        assert_equal(whole, run(loop, make_model, make_loader, epochs=3, callbacks=[saving]))
    saved = [torch.load(tmp_path / loop / f"step={steps}.ckpt", weights_only=True) for loop in ("trainer", "cached")]
    assert saved[0]["loops"] == saved[1]["loops"]
    assert saved[0]["lr_schedulers"] == saved[1]["lr_schedulers"]
    fit = lightning.Trainer.fit
    path = str(tmp_path / "cached" / f"step={steps}.ckpt")
    monkeypatch.setattr(lightning.Trainer, "fit", lambda *args: fit(*args, ckpt_path=path))
    for loop in ("trainer", "cached"):
        saving = ModelCheckpoint(tmp_path / "cached", filename="{step}", every_n_train_steps=steps, save_top_k=-1)
        assert_equal(whole, run(loop, make_model, make_loader, epochs=3, callbacks=[saving]))


def assert_equal(one, two):
    for name, value in one.state_dict().items():
        other = two.state_dict()[name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_what_breaks_a_run_off_leaves_the_same_behind(kind):
    class Break(RecordBatches):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if trainer.global_step == 5:
                raise kind("now")

        def on_exception(self, trainer, module, exception):
            self.note("exception", trainer, type(exception))

    left = []
    for loop in ("trainer", "cached"):
        record = Break()
        with pytest.raises((kind, SystemExit)) as caught:
            run(loop, groups(), LOADERS["shuffled"], callbacks=[record])
        left.append((record.seen, caught.type))
    assert left[0] == left[1]
    assert left[0][0][-1][0] == "exception"


def test_a_loss_that_is_not_finite_is_refused_before_it_spoils_the_weights():
    class Spoiling(SupConLoss):
        calls = 0

        def forward(self, embeddings, groups):
            self.calls += 1
            return super().forward(embeddings, groups) * (float("nan") if self.calls == 6 else 1.0)

    weights = []
    for loop in ("trainer", "cached"):
        model = group_model(cache=CPU, loss=Spoiling())
        with pytest.raises(DataError, match=r"the loss of .*train_step is nan; no weight was changed"):
            run(loop, lambda model=model: model, LOADERS["in order"], training={"nonfinite_limit": None})
        weights.append([p.tolist() for p in model.model.head.parameters()])
        assert model._log_later is None
    assert weights[0] == weights[1]


@pytest.mark.parametrize("own", [None, "compute_loss", "process_results", "train_step", "hook", "views"])
def test_the_quick_step_stands_in_for_the_usual_one_only(own):
    seen, quick = [], []

    def model():
        cache = CPU if own != "views" else CacheConfig(CacheType.CPU, views=2, augment=str.upper)
        made = group_model(cache=cache)
        made.process_results = lambda *args, **kwargs: seen.append(1)
        if own == "compute_loss":
            usual = made.compute_loss
            made.compute_loss = lambda *args: {**usual(*args), "more": torch.tensor(1.0)}
        elif own == "train_step":
            usual = made.train_step
            made.train_step = lambda batch, *args, **kwargs: usual(batch, *args, **kwargs)
        elif own == "hook":
            made.model.register_forward_hook(lambda *args: None)
            made.register_forward_hook(lambda *args: seen.append(2))
        return made

    with pytest.MonkeyPatch.context() as patch:
        call = CachedStep.__call__
        patch.setattr(CachedStep, "__call__", lambda *args: quick.append(1) or call(*args))
        assert_same(model, LOADERS["shuffled"])
    assert bool(quick) == (own in (None, "compute_loss", "process_results"))
    assert seen.count(1) == 2 * 22
    assert seen.count(2) == (2 * 22 if own == "hook" else 0)


def test_a_step_that_leaves_a_batch_out():
    class Skipping(TrainableModel):
        def train_step(self, data_batch, batch_idx=0, **kwargs):
            return None if batch_idx == 4 else super().train_step(data_batch, **kwargs)

    def model():
        return Skipping(encoders=BagEncoder(), head=SkipConnectionHead, loss=SupConLoss(), cache=CPU)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*returned `None`.*")
        assert_same(model, LOADERS["PK"])


class OwnStep(TrainableModel):
    def optimizer_step(self, *args, **kwargs):
        self.own_steps = getattr(self, "own_steps", 0) + 1
        return super().optimizer_step(*args, **kwargs)


def test_a_model_with_its_own_optimizer_step_gets_lightnings():
    def model():
        return OwnStep(encoders=BagEncoder(), head=SkipConnectionHead, loss=SupConLoss(), cache=CPU)

    trained, _ = assert_same(model, LOADERS["shuffled"], lean=False)
    assert trained.own_steps == 22


def test_an_optimizer_that_calls_the_step_several_times():
    def lbfgs(parameters):
        return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3)

    assert_same(groups(optimizer=lbfgs), LOADERS["shuffled"], epochs=1)


def used_loop(model, loader, **training):
    class Watch(Callback):
        def on_train_start(self, trainer, module):
            self.kind = type(trainer.fit_loop.epoch_loop).__name__

    watch = Watch()
    Runner(model, 1, loader, cfg={"training": {"device": "cpu", **training}}, callbacks=[watch]).fit()
    return watch.kind


def test_it_is_chosen_by_itself_where_every_encoder_is_cached():
    assert used_loop(group_model(cache=CPU), LOADERS["shuffled"]()) == "CachedEpochLoop"
    assert used_loop(group_model(cache=CPU), LOADERS["shuffled"](), loop="trainer") == "ResumableEpochLoop"
    assert used_loop(group_model(), LOADERS["shuffled"]()) == "ResumableEpochLoop"
    trained = {"frozen": BagEncoder(), "trained": BagEncoder(trainable=True)}
    cache = CacheConfig(mapping={"frozen": CacheType.CPU, "trained": CacheType.NONE})
    assert used_loop(group_model(encoders=trained, cache=cache), LOADERS["shuffled"]()) == "ResumableEpochLoop"


def test_where_it_is_required_it_says_why_it_cannot_run():
    with pytest.raises(ConfigError, match=r"CachedTrainLoop cannot run this: not every encoder is cached.*'auto'"):
        Runner(group_model(), 1, LOADERS["shuffled"](), cfg={"training": {"loop": "cached"}}).fit()
    with pytest.raises(ConfigError, match=r"unknown training\.loop 'fast'"):
        Runner(group_model(), 1, cfg={"training": {"loop": "fast"}})


def test_another_lightning_is_trained_with_as_it_is_and_said_so(monkeypatch, caplog):
    monkeypatch.setitem(PARTS, "results", ("batch", "not_there"))
    with caplog.at_level(logging.WARNING, "simtrain"):
        assert used_loop(group_model(cache=CPU), LOADERS["shuffled"]()) == "ResumableEpochLoop"
    assert "CachedTrainLoop is not used, training is slower: the results of lightning" in caplog.text
    assert "has no not_there" in caplog.text


def test_a_loop_can_be_given_and_only_an_object_with_run_is_taken():
    class Counting(TrainLoop):
        runs = 0

        def run(self):
            self.runs += 1
            assert self.runner.model is model
            super().run()

    model, loop = group_model(cache=CPU), Counting()
    assert Runner(model, 1, LOADERS["shuffled"](), train_loop=loop).fit() is model
    assert loop.runs == 1
    assert isinstance(Runner(model, 1, LOADERS["shuffled"](), train_loop=CachedTrainLoop()).train_loop, CachedTrainLoop)
    with pytest.raises(ConfigError, match=r"train_loop should be an object with a method run\(\).*got str"):
        Runner(model, 1, LOADERS["shuffled"](), train_loop="fast")


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [4, 7])
def test_batches_of_numbers_are_those_of_torchs_loader(drop_last, batch_size):
    def samplers():
        pk = PKSampler(torch.arange(N) % 8, batch_size=batch_size, per_group=1, seed=1)
        return [ShuffleSampler(range(N), seed=4), pk]

    for ours, theirs in zip(samplers(), samplers(), strict=True):
        for _ in range(2):
            expected = list(BatchSampler(theirs, batch_size, drop_last))
            assert [batch.tolist() for batch in ours.batches(batch_size, drop_last)] == expected
            assert ours.state_dict() == theirs.state_dict()
    ours, theirs = samplers()[0], samplers()[0]
    next(ours.batches(batch_size))
    next(iter(BatchSampler(theirs, batch_size, drop_last)))
    assert ours.state_dict() == theirs.state_dict()


def test_an_indexed_loader_draws_from_the_generators_as_torchs_does():
    def numbers(kind):
        torch.manual_seed(8)
        loader = kind(SampleNumbers(10), collate_fn=list, batch_size=3, sampler=RandomSampler(range(10)))
        return [[int(number) for number in batch] for _ in range(2) for batch in loader], torch.rand(1)

    assert numbers(IndexedDataLoader) == numbers(torch.utils.data.DataLoader)


def test_nn_modules_are_left_without_anything_of_the_loop():
    model = run("cached", groups(), LOADERS["shuffled"])
    assert model._log_later is None
