import json
import sys
from pathlib import Path

import pytest

from simtrain import SimilarityModel, load_cfg
from simtrain.errors import ConfigError, MissingExtraError
from simtrain.runner.sweep import sweep
from simtrain.runner.sweep.study import Study
from simtrain.runner.sweep.sweep_config import load_sweep

# The first rate learns, the others do nothing at all.
RATES = {"optimizer.lr": {"type": "grid", "values": [0.01, 1e-9, 1e-8]}}


def test_a_sweep_tries_trains_and_writes_the_best_config(file, job, tmp_path):
    result = sweep(file)
    assert [trial.state for trial in result.trials] == ["complete"] * 3
    rates = [trial.params["optimizer.lr"] for trial in result.trials]
    assert len(set(rates)) == 3
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert result.best.value == min(trial.value for trial in result.trials)

    best = load_cfg(result.best_config)
    assert best.optimizer.lr == result.best.params["optimizer.lr"]
    assert (best.data.test, best.run_dir) == (job["data"]["test"], str(tmp_path / "sweep" / "best"))
    for trial in result.trials:
        used = load_cfg(Path(trial.run_dir, "config.yaml"))
        assert (used.optimizer.lr, used.data.test) == (trial.params["optimizer.lr"], None)
        assert json.loads(Path(trial.run_dir, "metrics.json").read_text())["after"] is None
        assert Path(trial.run_dir, "model").exists() == (trial == result.best)
    assert SimilarityModel.load(Path(result.best.run_dir, "model")).embedding_size == 16
    assert result.table().splitlines()[2].split("|")[1].strip() == str(result.best.number)


def test_the_same_seed_tries_the_same_and_another_seed_does_not(file, tmp_path):
    short = ("trials=2", "training.epochs=1")
    tried = [
        [(t.params, t.value) for t in sweep(file, [f"run_dir={tmp_path / name}", f"seed={seed}", *short]).trials]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert tried[0] == tried[1]
    assert tried[0] != tried[2]


def test_a_finished_sweep_is_not_run_again_and_goes_on_with_more_trials(file):
    first = sweep(file, ["trials=1"])
    assert sweep(file, ["trials=1"]).trials == first.trials
    more = sweep(file, ["trials=2"])
    assert more.trials[0] == first.trials[0]
    assert len(more.trials) == 2


def test_hopeless_trials_are_ended_at_the_first_validations(file):
    pruner = "pruner={type: median, n_startup_trials: 1, n_warmup_steps: 1}"
    result = sweep({**file, "param_space": RATES, "trials": None}, [pruner, "training.epochs=6"])
    assert [trial.state for trial in result.trials] == ["complete", "pruned", "pruned"]
    assert [trial.validations for trial in result.trials] == [6, 2, 2]
    assert result.best.params == {"optimizer.lr": 0.01}


def test_grids_are_gone_through_and_go_together_with_choices(file):
    space = {
        "loss.temperature": {"type": "grid", "values": [0.1, 0.2]},
        "head.output_sizes": {"type": "choice", "values": [[4], [8, 4]]},
        "training.batch_size": {"type": "randint", "low": 16, "high": 32},
        "xbm": {"type": "grid", "values": [None]},
    }
    result = sweep({**file, "param_space": space, "trials": 2}, ["training.epochs=1"])
    assert [trial.params["loss.temperature"] for trial in result.trials] == [0.1, 0.2, 0.1, 0.2]
    for trial in result.trials:
        used = load_cfg(Path(trial.run_dir, "config.yaml"))
        assert used.head.output_sizes in ([4], [8, 4])
        assert 16 <= used.training.batch_size <= 32


def test_the_largest_figure_wins_where_more_is_better(file):
    evaluators = "evaluators={found: {type: SetRetrieval, k: [1]}}"
    result = sweep(file, ["mode=max", "metric=found_hit_rate@1_validation", evaluators, "trials=2", "pruner=null"])
    assert result.best.value == max(trial.value for trial in result.trials)


def test_a_trial_that_fails_is_told_and_the_others_go_on(file, job, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    space = {"data.train": {"type": "grid", "values": [str(tmp_path / "empty.jsonl"), job["data"]["train"]]}}
    result = sweep({**file, "param_space": space, "trials": None})
    assert [trial.state for trial in result.trials] == ["failed", "complete"]
    assert result.trials[0].fault.endswith("empty.jsonl has no rows; it should hold at least one")
    assert result.best.number == 1


def test_after_a_trial_that_fails_other_settings_are_tried(file):
    with pytest.raises(ConfigError, match="no figure 'recall'"):
        sweep(file, ["metric=recall", "mode=max", "trials=3", "training.epochs=1"])
    cfg = load_sweep(file, ["metric=recall", "mode=max", "trials=3", "training.epochs=1"])
    tried = [trial.params["optimizer.lr"] for trial in Study(cfg).trials("FAIL")]
    assert len(set(tried)) == 3


def test_processes_that_try_at_the_same_time_try_different_settings(file):
    cfg = load_sweep(file, [])
    first, second = Study(cfg), Study(cfg)
    with first.next_trial() as one, second.next_trial() as another:
        rates = [trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True) for trial in (one, another)]
    assert rates[0] != rates[1]


def test_where_every_trial_fails_the_sweep_ends_with_the_reason(file):
    with pytest.raises(
        ConfigError, match="the validation gives no figure 'valid_loss'; did you mean 'validation_loss'"
    ):
        sweep({**file, "metric": "valid_loss", "trials": 10})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"trials": 0}, "trials should be at least 1, got 0"),
        ({"metrik": "x"}, "the config has an unknown key 'metrik'; did you mean 'metric'?"),
        ({"mode": "maximum"}, "unknown mode 'maximum'; did you mean 'max'? Accepted: 'max', 'min'"),
        ({"config": None}, "the config gives no value for 'config'; add it to the file or as config=…"),
        ({"config": "none.yaml"}, "there is no config file 'none.yaml'"),
        ({"config": 3}, "config should be the path of a job's file, or the job itself, got 3"),
        (
            {"param_space": {}},
            "param_space names no key; write optimizer.lr: {type: loguniform, low: 1e-4, high: 1e-1}",
        ),
        ({"pruner": {"type": "medain"}}, "unknown pruner type 'medain'; did you mean 'median'?"),
        (
            {"pruner": {"type": "median", "n_warmup": 1}},
            "pruner 'median' has no setting 'n_warmup'; did you mean 'n_warm",
        ),
        (
            {"param_space": {"training.epoch": {"type": "grid", "values": [1]}}},
            "the config has an unknown key 'training.epoch'; did you mean 'epochs'?",
        ),
        (
            {"param_space": {"training.epochs": {"type": "randint", "low": 0, "high": 3}}},
            "training.epochs should be at least 1, got 0",
        ),
    ],
)
def test_bad_input_is_found_before_anything_is_written(file, tmp_path, words, message):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError) as error:
        sweep({**file, **words})
    assert str(error.value).startswith(message)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_job_without_validation_data_is_refused(file, job):
    del job["data"]["valid"]
    with pytest.raises(ConfigError, match=r"no value for 'data.valid'"):
        sweep(file)


def test_a_folder_with_another_sweep_or_something_else_is_left_alone(file, tmp_path):
    sweep(file, ["trials=1"])
    with pytest.raises(
        ConfigError, match=r"holds a sweep with training.epochs 3, and not 4; their trials do not compare"
    ):
        sweep(file, ["training.epochs=4"])
    with pytest.raises(
        ConfigError, match=r"holds a sweep with param_space.optimizer.lr .*: give this sweep a folder of"
    ):
        sweep({**file, "param_space": {"optimizer.lr": {"type": "uniform", "low": 1e-4, "high": 1e-1}}})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(
        ConfigError, match="full' holds something else; give the sweep a folder of its own with run_dir="
    ):
        sweep(file, [f"run_dir={tmp_path / 'full'}"])
    assert [path.name for path in (tmp_path / "full").iterdir() if path.suffix != ".lock"] == ["notes.txt"]


def test_without_optuna_the_way_to_install_it_is_told(file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(
        MissingExtraError, match=r"'optuna', which is not installed; run: pip install 'simtrain\[sweep\]'"
    ):
        sweep(file)
    assert not (tmp_path / "sweep").exists()
