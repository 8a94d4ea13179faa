"""The runner: its life, its stages, what it builds by default."""

import inspect
import logging

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from simtrain import BaseCallBack, Evaluator, Runner
from simtrain.errors import ConfigError, ContractError
from simtrain.runner import RunnerBase, RunnerState, TestLoop, TrainLoop, ValidLoop
from tests.contract.runner_parts import HOOKS, Diary, Mean, Modes, loader
from tests.contract.seed_models import ToyModel, toy_batches


@pytest.mark.contract("002-1")
def test_002_1_every_hook_is_told_to_every_callback():
    diaries, base = [Diary(), Diary()], RunnerBase()
    base.register_callbacks(diaries)
    for hook in HOOKS:
        getattr(base, hook)()
    error = KeyError("x")
    base.on_exception(error)
    assert all(diary.lines == ["on_register", *HOOKS, error] for diary in diaries)


@pytest.mark.contract("002-1", "ruling-10")
@pytest.mark.parametrize("loop", ["auto", "trainer"])
def test_002_1_a_fit_calls_its_hooks_in_the_documented_order(loop):
    diary = Diary()
    Runner(ToyModel(), 2, loader(2), loader(1), callbacks=[diary], cfg={"training": {"loop": loop}}).fit()
    batch = ["before_running_batch", "after_running_batch"]
    # Validation belongs to the epoch: what looks at it at the epoch's end sees it fresh.
    epoch = ["before_running_epoch", *batch, *batch, "before_valid", "after_valid", "after_running_epoch"]
    assert diary.lines == ["on_register", "before_fit", "before_train", *epoch, *epoch, "after_train", "after_fit"]


@pytest.mark.contract("002-1")
def test_002_1_the_order_is_the_one_that_base_callback_documents():
    documented = [word.strip(",") for line in inspect.getdoc(BaseCallBack).splitlines() for word in line.split()]
    assert [word for word in documented if word in HOOKS] == HOOKS


@pytest.mark.contract("002-2")
def test_002_2_registering_replaces_extending_adds_none_is_passed_over():
    runner = Runner(ToyModel(), 1, loader())
    first, second, third = Diary(), Diary(), lightning.pytorch.Callback()
    runner.register_callbacks([None, first])
    assert runner.callbacks == [first]
    runner.register_callbacks([second])
    runner.extend_callbacks([None, first, third])
    assert runner.callbacks == [second, first, third]
    assert first.lines == ["on_register"] * 2
    assert first.runner is runner
    runner.unregister_callbacks()
    assert runner.callbacks == []


@pytest.mark.contract("002-2")
@pytest.mark.parametrize("way", ["register_callbacks", "extend_callbacks"])
@pytest.mark.parametrize(
    ("wrong", "named"),
    [(object(), "got object"), ("progress", "got str"), (Diary, "got Diary; give an object of the class, not the")],
)
def test_002_2_what_is_no_callback_is_refused_and_the_list_stays(way, wrong, named):
    kept, runner = Diary(), Runner(ToyModel(), 1, loader())
    runner.register_callbacks([kept])
    message = f"a callback should be a simtrain BaseCallBack or a lightning Callback, {named}"
    with pytest.raises(ContractError, match=message):
        getattr(runner, way)([Diary(), wrong])
    assert runner.callbacks == [kept]
    with pytest.raises(ContractError, match=message):
        Runner(ToyModel(), 1, loader(), callbacks=[wrong])


@pytest.mark.contract("002-3")
def test_002_3_the_signature_is_the_contracts():
    words = list(inspect.signature(Runner).parameters)
    stages = ("train", "valid", "test")
    asked = [f"{stage}_{part}" for part in ("data_loader", "loop", "evaluator") for stage in stages]
    assert words == ["model", "epochs", *asked, "optimizer", "cfg", "callbacks", "logger"]
    with pytest.raises(TypeError, match="train_dataloader"):  # the source swallows typos
        Runner(ToyModel(), 1, train_dataloader=loader())
    with pytest.raises(TypeError):
        Runner(ToyModel(), 1, *[None] * 11, [Diary()])


@pytest.mark.contract("002-3", "002-7")
@pytest.mark.parametrize("stage", ["train", "valid", "test"])
def test_002_3_without_its_loader_a_stage_says_what_is_missing(stage):
    runner = Runner(ToyModel(), 1)
    assert getattr(runner, f"{stage}_loop") is None
    with pytest.raises(ValueError, match=f"this runner has no {stage}_data_loader; pass one to use this stage"):
        getattr(runner, stage)()


@pytest.mark.contract("002-3")
def test_002_3_loops_are_injected():
    calls = []

    class Mine:
        def __init__(self, stage):
            self.stage = stage

        def run(self):
            calls.append((self.stage, self.runner.model))
            return {"mine": 1.0}

    model = ToyModel()
    runner = Runner(model, 1, train_loop=Mine("train"), valid_loop=Mine("valid"), test_loop=Mine("test"))
    assert runner.fit() is model
    assert runner.valid() == runner.test() == {"mine": 1.0}
    assert calls == [(stage, model) for stage in ("train", "valid", "test")]
    for word in ("train_loop", "valid_loop", "test_loop"):
        with pytest.raises(ConfigError, match=f"{word} should be an object with a method run"):
            Runner(model, 1, loader(), **{word: Mine})
        with pytest.raises(ConfigError, match=f"{word} should be .*, got dict"):
            Runner(model, 1, loader(), **{word: {}})


@pytest.mark.contract("002-3", "002-13")
def test_002_3_the_given_optimizer_trains_the_model():
    class Own(ToyModel):
        def configure_optimizers(self):
            raise AssertionError("not asked")

    for kind in (ToyModel, Own):
        model, twin = kind(), ToyModel()
        twin.load_state_dict(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        runner = Runner(model, 1, loader(3), optimizer=optimizer)
        for _ in range(2):  # its momentum goes on
            runner.fit()
        reference = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
        for batch in toy_batches(3) * 2:
            reference.zero_grad()
            twin.train_step(batch)["loss"].backward()
            reference.step()
        torch.testing.assert_close(model.linear.weight, twin.linear.weight)
        assert runner.optimizer is optimizer
        assert "configure_optimizers" not in vars(model)


@pytest.mark.contract("002-3")
@pytest.mark.usefixtures("without_type_checks")
def test_002_3_an_optimizer_of_nothing_of_the_model_is_refused():
    with pytest.raises(ConfigError, match="the optimizer has no parameter of this ToyModel"):
        Runner(ToyModel(), 1, loader(), optimizer=torch.optim.SGD(ToyModel().parameters(), lr=0.1))
    with pytest.raises(ContractError, match="optimizer should be a torch optimizer, got dict"):
        Runner(ToyModel(), 1, loader(), optimizer={"type": "SGD"})


@pytest.mark.contract("002-4")
def test_002_4_the_parts_are_set_up_in_order():
    steps = []

    class Watched(Runner):
        pass

    names = ["setup_launch_strategy", "setup_logger", "setup_model_optimizer", "setup_loop", "setup_callbacks"]
    for name in [*names, "setup_evaluator"]:

        def step(self, *args, name=name):
            steps.append(name)
            return getattr(Runner, name)(self, *args)

        setattr(Watched, name, step)
    Watched(ToyModel(), 1, loader())
    assert steps == [*names, "setup_evaluator"]


class Failing(ToyModel):
    error: BaseException

    def train_step(self, batch):
        raise self.error


@pytest.mark.contract("002-5")
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_002_5_the_same_exception_comes_out_after_every_callback_was_told(kind, caplog):
    import signal

    before, model, diary = signal.getsignal(signal.SIGINT), Failing(), Diary()
    model.error = kind("stop here")
    with pytest.raises(kind) as caught:
        Runner(model, 1, loader(), callbacks=[diary]).fit()
    assert caught.value is model.error
    expected = ["before_fit", "before_train", "before_running_epoch", "before_running_batch", model.error, "after_fit"]
    assert diary.lines == ["on_register", *expected]
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert f"{kind.__name__}: stop here" in critical[0].getMessage()
    assert critical[0].exc_info[1] is model.error
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.contract("002-5")
def test_002_5_a_callback_that_fails_on_the_exception_does_not_take_its_place(caplog):
    class Bad(BaseCallBack):
        def on_exception(self, exception):
            raise RuntimeError("cannot save")

        def after_fit(self):
            raise RuntimeError("cannot close")

    model, diary = Failing(), Diary()
    model.error = ValueError("the cause")
    with pytest.raises(ValueError, match="the cause"):
        Runner(model, 1, loader(), callbacks=[Bad(), diary]).fit()
    assert diary.lines[-2:] == [model.error, "after_fit"]
    assert "Bad.on_exception failed, after the run had" in caplog.text


@pytest.mark.contract("002-5")
def test_002_5_what_fails_before_and_after_a_fit_is_raised_too():
    class Bad(BaseCallBack):
        def before_fit(self):
            raise RuntimeError("at first")

    diary = Diary()
    with pytest.raises(RuntimeError, match="at first"):
        Runner(ToyModel(), 1, loader(), callbacks=[diary, Bad()]).fit()
    assert [str(line) for line in diary.lines] == ["on_register", "before_fit", "at first", "after_fit"]
    Bad.before_fit, Bad.after_fit = BaseCallBack.before_fit, Bad.before_fit
    with pytest.raises(RuntimeError, match="at first"):
        Runner(ToyModel(), 1, loader(), callbacks=[Bad()]).fit()


@pytest.mark.contract("002-7")
def test_002_7_valid_and_test_run_alone_and_give_dicts():
    model = ToyModel()
    expected = sum(model.compute_loss(**batch)["loss"].item() for batch in toy_batches(4)) / 4
    runner = Runner(model, 1, valid_data_loader=loader(), test_data_loader=loader())
    assert runner.valid() == {"validation_loss": pytest.approx(expected)}
    assert runner.test() == {"test_loss": pytest.approx(expected)}
    assert runner.state.current_epoch == 0


@pytest.mark.contract("002-8")
@pytest.mark.parametrize("epochs", [0, -1, 2.0, True, "3"])
def test_002_8_epochs_are_a_positive_integer(epochs, without_type_checks):
    with pytest.raises(ConfigError, match=f"epochs should be a positive integer, got {epochs!r}"):
        Runner(ToyModel(), epochs, loader())


@pytest.mark.contract("002-8")
def test_002_8_default_loops_are_there_for_the_stages_that_have_loaders():
    runner = Runner(ToyModel(), 1, loader(), loader(), loader())
    assert isinstance(runner.train_loop, TrainLoop)
    assert isinstance(runner.valid_loop, ValidLoop)
    assert isinstance(runner.test_loop, TestLoop)


@pytest.mark.contract("002-10")
def test_002_10_the_schedule_and_the_optimizer_are_the_runners():
    cfg = {"optimizer": {"type": "SGD", "lr": 1.0}, "scheduler": {"type": "linear", "warmup_rate": 0.0}}
    runner = Runner(ToyModel(), 2, loader(2), cfg=cfg)
    assert runner.scheduler is None
    seen = []

    class Look(BaseCallBack):
        def before_train(self):
            seen.append((self.runner.scheduler.get_last_lr(), type(self.runner.optimizer).__name__))

    runner.extend_callbacks([Look()])
    runner.fit()
    assert seen == [([1.0], "SGD")]
    assert runner.scheduler.get_last_lr() == [0.0]


@pytest.mark.contract("002-12")
def test_002_12_the_launch_is_known_before_anything_runs():
    state = Runner(ToyModel(), 1, loader(), cfg={"training": {"device": "cpu"}}).state
    assert state.device == torch.device("cpu")
    assert (state.is_main_process, state.rank, state.world_size) == (True, 0, 1)
    assert state.start_msg == "on cpu, precision 32-true"
    with pytest.raises(ConfigError, match="lightning cannot run with this config's section 'training'"):
        Runner(ToyModel(), 1, loader(), cfg={"training": {"device": "mps"}})


@pytest.mark.contract("002-14")
@pytest.mark.parametrize("shuffle", [False, True])
def test_002_14_each_process_reads_its_part(shuffle):
    runner = Runner(ToyModel(), 1)
    given = DataLoader(range(10), batch_size=2, shuffle=shuffle, collate_fn=list, worker_init_fn=print, drop_last=True)
    assert runner.wrap_dataloader(given) is given
    runner.state.world_size, seen = 2, []
    for runner.state.rank in (0, 1):
        wrapped = runner.wrap_dataloader(given)
        assert isinstance(wrapped.sampler, DistributedSampler)
        assert (wrapped.worker_init_fn, wrapped.collate_fn, wrapped.batch_size) == (print, list, 2)
        batches = list(wrapped)
        assert [len(batch) for batch in batches] == [2, 2]  # the last, smaller one is dropped as before
        seen += [item for batch in batches for item in batch]
        wrapped.sampler.set_epoch(1)
        assert (list(wrapped) == batches) is not shuffle
    assert len(set(seen)) == 8
    assert not isinstance(given.sampler, DistributedSampler)


@pytest.mark.contract("002-14")
def test_002_14_samplers_that_know_of_processes_and_samplers_of_ones_own_stay():
    runner = Runner(ToyModel(), 1)
    runner.state.world_size = 2
    own = torch.utils.data.BatchSampler(torch.utils.data.SubsetRandomSampler(range(4)), 2, False)
    for one in (
        DataLoader(range(10), sampler=DistributedSampler(range(10), 2, 0)),
        DataLoader(range(10), batch_sampler=own),
        DataLoader(range(10), batch_sampler=[[0, 1], [2, 3]]),
    ):
        assert runner.wrap_dataloader(one) is one


@pytest.mark.contract("002-16", "002-3")
def test_002_16_evaluators_get_the_state_and_measure_their_stage():
    seen = []

    class Looking(Mean):
        def compute_metrics(self, results):
            seen.append((self.state.current_epoch, len(results)))
            return super().compute_metrics(results)

    train, valid, test = (Evaluator(Looking()) for _ in range(3))
    data = loader(3)
    runner = Runner(ToyModel(), 2, loader(), data, data, None, None, None, train, valid, test)
    monitored = []

    class Look(BaseCallBack):
        def after_running_epoch(self):
            figures = self.runner.state.trainer.callback_metrics
            monitored.append({name: float(figures[name]) for name in ("mean_validation", "validation_loss")})

    runner.extend_callbacks([Look()])
    runner.fit()
    assert all(one.state is runner.state for one in (train, valid, test))
    assert isinstance(runner.state, RunnerState)
    assert seen == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert all(one["mean_validation"] == pytest.approx(one["validation_loss"]) for one in monitored)
    figures = runner.valid()
    assert figures["mean"] == pytest.approx(figures["mean_validation"]) == pytest.approx(figures["validation_loss"])
    assert runner.test()["mean"] == pytest.approx(figures["mean"])


@pytest.mark.contract("002-16", "wall_e-12")
def test_002_16_an_evaluator_may_be_given_by_its_metrics_or_a_config():
    runner = Runner(ToyModel(), 1, valid_data_loader=loader(), valid_evaluator={"mine": Mean()})
    assert set(runner.valid()) == {"mine/mean", "mine/mean_validation", "validation_loss"}
    assert isinstance(Runner(ToyModel(), 1, test_evaluator={"type": "SetRetrieval"}).test_evaluator, Evaluator)
    with pytest.raises(ConfigError, match="valid_evaluator: an Evaluator takes BaseMetrics"):
        Runner(ToyModel(), 1, valid_data_loader=loader(), valid_evaluator=object())


@pytest.mark.contract("002-7")
def test_002_7_a_callback_may_validate_and_test_in_the_middle_of_a_training():
    class Middle(BaseCallBack):
        def after_running_epoch(self):
            self.figures = (self.runner.valid(), self.runner.test())

    middle, diary, model = Middle(), Diary(), Modes()
    with_both = {"valid_evaluator": Mean(), "test_evaluator": Mean()}
    runner = Runner(model, 2, loader(1), loader(2), loader(3), callbacks=[middle, diary], **with_both)
    runner.fit()
    once = [("train", True, False), *[("valid", False, False)] * (2 + 2 + 3)]
    assert model.seen == once * 2
    assert middle.figures[0]["mean"] == pytest.approx(runner.valid()["mean"])
    assert middle.figures[1]["mean"] == pytest.approx(runner.test()["mean"])
    assert middle.figures[1]["mean"] == pytest.approx(middle.figures[1]["test_loss"])
    assert diary.lines.count("after_valid") == 5
    assert diary.lines.count("after_test") == 3
