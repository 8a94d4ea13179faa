import logging
import warnings
from pathlib import Path

import lightning
import pytest
import torch

from simtrain import BaseCallBack, CacheConfig, CacheType, Runner
from simtrain.data import GroupSimilarityDataLoader, PairsSimilarityDataLoader, SimilarityGroupDataset
from simtrain.errors import ConfigError, ContractError, DataError
from tests.training.models import BagEncoder, group_model, pair_model, pair_samples


def loader(n=24, **options):
    return PairsSimilarityDataLoader(pair_samples(n), **{"batch_size": 8, **options})


@pytest.mark.parametrize("cache", [None, CacheConfig(CacheType.CPU)])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_runner_takes_the_steps_of_a_bare_trainer(cache, workers):
    torch.manual_seed(2)
    reference = pair_model()
    torch.manual_seed(4)
    prepared = reference.setup_dataloader(loader(shuffle=True))
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice, which the Runner keeps quiet
        trainer.fit(reference, prepared)
    model = pair_model(cache=cache)
    model.model.head.load_state_dict(pair_model().model.head.state_dict())
    torch.manual_seed(4)
    assert Runner(model, epochs=3, train_data_loader=loader(shuffle=True, num_workers=workers)).fit() is model
    for name, value in reference.model.head.state_dict().items():
        torch.testing.assert_close(model.model.head.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_each_stage_gives_its_figures_and_changes_no_weight():
    model = pair_model()
    runner = Runner(model, epochs=1, valid_data_loader=loader(), test_data_loader=loader())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert set(runner.valid()) == {"validation_loss"}
    assert set(runner.test()) == {"test_loss"}
    assert runner.valid()["validation_loss"] == runner.test()["test_loss"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_figure_of_a_stage_is_the_mean_over_its_items():
    model = pair_model()
    figure = Runner(model, epochs=1, valid_data_loader=loader(20, batch_size=12)).valid()["validation_loss"]
    samples = pair_samples(20)
    parts = [(model.valid_step(part)["loss"].item(), len(part)) for part in (samples[:12], samples[12:])]
    assert figure == pytest.approx(sum(loss * size for loss, size in parts) / 20, rel=1e-6)


def test_validation_runs_after_each_epoch_and_callbacks_see_it():
    class Watch(lightning.pytorch.Callback):
        losses = []  # noqa: RUF012

        def on_validation_end(self, trainer, module):
            self.losses.append(float(trainer.callback_metrics["validation_loss"]))

    watch = Watch()
    Runner(pair_model(), 3, loader(), loader(), callbacks=[watch]).fit()
    assert len(watch.losses) == 3


def test_the_training_section_of_a_config_is_followed():
    class Watch(lightning.pytorch.Callback):
        def on_train_start(self, trainer, module):
            self.seen = (trainer.max_epochs, trainer.accumulate_grad_batches, trainer.gradient_clip_val)

    watch = Watch()
    cfg = {"training": {"epochs": 2, "gradient_accumulation": 3, "grad_clip": 0.5}}
    Runner(pair_model(), train_data_loader=loader(), cfg=cfg, callbacks=[watch]).fit()
    assert watch.seen == (2, 3, 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Runner(BagEncoder(), 1), "a Runner takes a BaseModel, or a TrainableModel, .* got BagEncoder"),
        (lambda: Runner(pair_model(), 0), "epochs should be a positive integer, got 0"),
        (lambda: Runner(pair_model(), 1, pair_samples()), "train_data_loader should be a DataLoader, got list"),
        (lambda: Runner(pair_model(), 1, cfg={"traning": {}}), "unknown key 'traning'; did you mean 'training'"),
        (lambda: Runner(pair_model(), 1).fit(), "this runner has no train_data_loader"),
        (lambda: Runner(pair_model(), 1).valid(), "this runner has no valid_data_loader"),
        (lambda: Runner(pair_model(), 1).test(), "this runner has no test_data_loader"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_what_cannot_run_is_refused_in_a_sentence(make, message):
    with pytest.raises((ConfigError, ContractError), match=message):
        make()


def test_a_loader_without_a_batch_is_refused_and_not_trained_with_in_silence():
    with pytest.raises(DataError, match=r"the train loader gives no batch: 24 samples, batch size 64, drop_last=True"):
        Runner(pair_model(), 1, loader(batch_size=64, drop_last=True))


def test_an_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match="train_dataloader"):
        Runner(pair_model(), 1, train_dataloader=loader())


def test_an_exception_in_a_step_comes_out_as_it_is_and_logging_is_restored():
    model = pair_model()

    def fail(*args, **kwargs):
        raise DataError("this very error")

    model.process_results = fail
    talk = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = talk.level
    with pytest.raises(DataError, match="this very error"):
        Runner(model, 1, loader()).fit()
    assert talk.level == level


@pytest.mark.parametrize(("labels", "message"), [([1, 1, 1], "labels are equal"), ([1, 2, 3], "labels are different")])
def test_groups_that_teach_nothing_are_refused_before_training(labels, message):
    data = SimilarityGroupDataset([(f"word{label}", label) for label in labels])
    with pytest.raises(DataError, match=message):
        Runner(group_model(), 1, GroupSimilarityDataLoader(data, batch_size=3))


@pytest.mark.parametrize("cache", [None, CacheConfig(CacheType.CPU)])
def test_a_loader_that_was_prepared_before_is_taken_as_it_is(cache):
    model = pair_model(cache=cache)
    prepared = model.setup_dataloader(loader())
    before = model.model.head.state_dict()["fc_0.weight"].clone()
    Runner(model, 1, prepared, prepared).fit()
    assert not torch.equal(model.model.head.state_dict()["fc_0.weight"], before)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"logger": "csv"}, "logger should be a lightning Logger, or several, got 'csv'; by config: log.csv, "),
        ({"logger": [None]}, "logger should be a lightning Logger, or several, got None"),
        ({"cfg": [1]}, r"a config is a mapping, or the path of a YAML file, got \[1\]"),
        ({"callbacks": 3}, "a callback should be a simtrain BaseCallBack or a lightning Callback, got int"),
    ],
)
def test_words_of_another_kind_are_refused_in_a_sentence(words, message):
    with pytest.raises((ContractError, ConfigError), match=message):
        Runner(pair_model(), 1, loader(), **words)


@pytest.mark.usefixtures("without_type_checks")
def test_one_callback_is_a_list_of_one_and_a_hook_of_batches_may_be_set_on_the_object():
    callback, seen = BaseCallBack(), []
    callback.after_running_batch = lambda: seen.append(runner.state.current_batch)
    runner = Runner(pair_model(), 1, loader(24, batch_size=12), callbacks=callback)
    runner.fit()
    assert seen == [1, 2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file that is always full")
def test_a_log_that_cannot_be_written_breaks_off_no_run(tmp_path, capsys):
    (tmp_path / "run.log").symlink_to("/dev/full")
    cfg = {"run_dir": str(tmp_path), "training": {"device": "cpu"}}
    runner = Runner(pair_model(), 1, loader(), cfg=cfg)
    runner.fit()
    told = capsys.readouterr().err
    assert told.count("run.log: [Errno 28] No space left on device") == 1
    assert "Traceback" not in told
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
