"""The config of the Runner: its keys, what is kept of a run, its log; and faults of its model that are not ours."""

import json
import logging
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from simtrain import BaseModel, Runner, load_cfg
from simtrain.config.former_keys import FORMER_KEYS
from simtrain.config.keys import schema_keys, section_docs
from simtrain.errors import ConfigError, SimtrainError

#: Every key of runner.yaml (and of tune.yaml), with a value as it stands there.
KEYS = {
    **{"run_name": "faq", "run_description": "a try", "run_dir": "runs"},
    **{"dataset.type": "pairs", "model.type": "resnet", "metric.type": "accuracy"},
    **{"optimizer.lr": 1e-3, "optimizer.weight_decay": 0.05},
    **{"scheduler.type": "cosine", "scheduler.min_lr": 1e-5, "scheduler.max_lr": 1e-3, "scheduler.warmup_rate": 0.05},
    **{"scheduler.warmup_start_lr": 2e-5, "scheduler.decay_rate": 0.9},
    **{"training.epochs": 5, "training.ds_config": "ds.json", "training.is_sweep": False},
    **{"training.gradient_accumulation": 1, "training.resume_from": None, "training.load_from": None},
    **{"training.activation_checkpoint": ["layers.0"], "training.grad_clip": None, "training.fp16": False},
    **{"training.print_model": True, "training.progress_show": {"loss": False}},
    **{f"training.{word}_begin_epoch": 1 for word in ("valid", "test")},
    **{f"training.{word}_interval_epoch": 1 for word in ("valid", "test")},
    **{f"training.{word}_begin_iter": 4000 for word in ("valid", "test")},
    **{f"training.{word}_interval_iter": 1000 for word in ("valid", "test")},
    **{"training.progress_every_n_epochs": 1, "training.progress_every_n_batches": 10},
    **{"log.to_file": True, "log.folder": "logs", "log.level": "INFO", "log.rank_level": "WARNING"},
    **{"pt.enable": True, "pt.dir": "pt", "pt.best_monitor": {"loss": False}, "pt.topk": 3, "pt.begin_epoch": 1},
    **{"pt.epoch_interval": 1, "pt.begin_batch": 1, "pt.batch_interval": None},
    **{"wandb.enable": False, "wandb.proj_name": "faq", "wandb.offline": True, "wandb.dir": "w", "wandb.tags": ["a"]},
    **{"tune.metric": "loss", "tune.mode": "min", "tune.max_t": 10, "tune.grace_period": 1, "tune.reduction_factor": 4},
    **{"tune.num_workers": 1, "tune.use_gpu": False, "tune.num_samples": 10, "tune.name": "t"},
    **{"tune.storage_path": "runs", "tune.param_space": {"optimizer.lr": {"type": "uniform"}}},
}


class Tiny(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x, mode="tensor"):
        y = self.layer(x).squeeze(1)
        return {"loss": (y**2).mean()} if mode == "loss" else [y]


def loader():
    return DataLoader([{"x": torch.ones(8, 4)} for _ in range(2)], batch_size=None)


def runner(cfg, **words):
    return Runner(Tiny(), epochs=1, train_data_loader=loader(), cfg=cfg, **words)


def on_cpu(**words):
    return {"training": {"device": "cpu", "progress_bar": False}, **words}


def nested(name, value):
    for word in reversed(name.split(".")):
        value = {word: value}
    return value


def exists(key):
    """Whether the schema has a key, or one that it begins with: a part's own settings are not the schema's."""
    known = {one.name for one in schema_keys()} | section_docs().keys()
    words = key.split(".")
    return any(".".join(words[:depth]) in known for depth in range(1, len(words) + 1)) and words[0] in {
        name.split(".")[0] for name in known
    }


def sample(name):
    cfg = nested(name, KEYS[name])
    return {**cfg, "scheduler": {"type": "cosine", **cfg["scheduler"]}} if "scheduler" in cfg else cfg


@pytest.mark.contract("002-3")
@pytest.mark.parametrize("name", [name for name in KEYS if name not in FORMER_KEYS])
def test_002_3_keys_of_runner_yaml_are_accepted(name):
    value = OmegaConf.select(load_cfg(sample(name)), name)
    assert (OmegaConf.to_container(value) if OmegaConf.is_config(value) else value) == KEYS[name]


@pytest.mark.contract("002-3")
@pytest.mark.parametrize("name", [name for name in KEYS if name in FORMER_KEYS])
def test_002_3_or_answered_with_what_they_are_here_and_what_to_write(name):
    keys, say = FORMER_KEYS[name]
    with pytest.raises(ConfigError) as error:
        load_cfg(sample(name))
    assert str(error.value).startswith(f"the config's key {name!r} ")
    assert str(error.value).endswith(f"; {say}")
    assert all(repr(key) in str(error.value) for key in keys)


@pytest.mark.contract("002-3")
def test_002_3_there_are_so_many_keys_and_each_answer_names_keys_that_there_are():
    assert len(KEYS) == 63
    sections = {"dataset", "model", "metric", "pt", "tune"}
    assert FORMER_KEYS.keys() <= KEYS.keys() | sections
    for name, (keys, _) in FORMER_KEYS.items():
        assert all(exists(key) for key in keys), name
    # A key that the schema has, too, would never be answered.
    assert not FORMER_KEYS.keys() & {key.name for key in schema_keys()}


@pytest.mark.contract("002-3")
def test_002_3_a_config_is_a_mapping_a_file_s_content_or_nothing():
    assert runner(None).cfg.training.epochs == 10
    for cfg in (on_cpu(seed=3), OmegaConf.create(on_cpu(seed=3)), load_cfg(on_cpu(seed=3))):
        assert runner(cfg).cfg.seed == 3


@pytest.mark.contract("002-6")
def test_002_6_config_environment_and_seed_are_in_the_run_s_folder_before_the_first_batch(tmp_path):
    seen = []

    class Look(Tiny):
        def forward(self, x, mode="tensor"):
            seen.append(sorted(path.name for path in (tmp_path / "run").iterdir()))
            return super().forward(x, mode)

    cfg = on_cpu(run_dir=str(tmp_path / "run"), seed=7, optimizer={"lr": 0.5})
    Runner(Look(), epochs=1, train_data_loader=loader(), cfg=cfg).fit()
    assert {"config.yaml", "environment.json", "run.log"} <= set(seen[0])
    kept = load_cfg(tmp_path / "run" / "config.yaml")
    assert (kept.seed, kept.optimizer.lr, kept.optimizer.type) == (7, 0.5, "AdamW")
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["seed"] == 7
    assert environment["packages"]["torch"] == torch.__version__
    assert {"python", "platform", "devices", "git", "started"} <= set(environment)


@pytest.mark.contract("002-6")
def test_002_6_the_log_says_on_what_with_which_config_and_model(tmp_path):
    runner(on_cpu(run_dir=str(tmp_path), seed=7)).fit()
    log = (tmp_path / "run.log").read_text()
    assert "INFO training on cpu, precision 32-true\n" in log
    assert "seed: 7\n" in log
    assert "(layer): Linear(in_features=4, out_features=1, bias=True)" in log


@pytest.mark.contract("002-6")
def test_002_6_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner(on_cpu()).fit()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.contract("002-6")
def test_002_6_a_folder_may_be_named_by_the_time_for_all_processes_of_a_run(tmp_path):
    folder = load_cfg({"run_dir": str(tmp_path) + "/${now:%Y-%m-%d_%H-%M-%S}"}).run_dir
    code = "from simtrain.config.start_time import start_time; print(start_time().strftime('%Y-%m-%d_%H-%M-%S'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert folder == f"{tmp_path}/{other}"


@pytest.mark.contract("002-11")
@pytest.mark.parametrize(("level", "expected"), [("INFO", ["information", "warning"]), ("ERROR", [])])
def test_002_11_the_log_has_a_level_and_a_file_that_a_resumed_run_goes_on_in(tmp_path, level, expected):
    class Talking(Tiny):
        def forward(self, x, mode="tensor"):
            for word in ("debug", "information", "warning"):
                logging.getLogger("simtrain.mine").log(
                    getattr(logging, word[:4].upper() if word != "debug" else "DEBUG", 30), word
                )
            return super().forward(x, mode)

    cfg = on_cpu(run_dir=str(tmp_path), log={"level": level})
    logger = logging.getLogger("simtrain")
    before = (logger.level, list(logger.handlers))
    for turn in (1, 2):
        Runner(Talking(), epochs=1, train_data_loader=loader(), cfg=cfg).fit()
        lines = (tmp_path / "run.log").read_text().splitlines()
        said = [line.rpartition(" ")[2] for line in lines if line.endswith((" debug", " information", " warning"))]
        assert said == expected * 2 * turn
    assert (logger.level, list(logger.handlers)) == before


@pytest.mark.contract("002-11")
def test_002_11_no_file_where_none_is_wanted_and_the_reason_in_it_where_a_run_breaks_off(tmp_path):
    runner(on_cpu(run_dir=str(tmp_path / "quiet"), log={"to_file": False})).fit()
    assert not (tmp_path / "quiet" / "run.log").exists()

    class Breaking(Tiny):
        def forward(self, x, mode="tensor"):
            raise ValueError("the third batch is odd")

    with pytest.raises(ValueError, match="odd"):
        Runner(Breaking(), epochs=1, train_data_loader=loader(), cfg=on_cpu(run_dir=str(tmp_path / "broken"))).fit()
    log = (tmp_path / "broken" / "run.log").read_text()
    assert "CRITICAL training broke off: ValueError: the third batch is odd" in log
    assert "Traceback" in log


@pytest.mark.contract("002-11")
def test_002_11_a_wrong_level_is_told():
    with pytest.raises(ConfigError, match=r"unknown log.level 'INFORM'; did you mean 'INFO'"):
        runner(on_cpu(log={"level": "INFORM"}))


@pytest.mark.contract("wall_e-9")
@pytest.mark.parametrize("cfg", [None, {}, {"training": {}}, {"run_dir": None}, {"optimizer": {"lr": 0.1}}])
def test_wall_e_9_a_config_may_be_missing_empty_or_without_a_section(cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runner(cfg).fit().layer.weight.isfinite().all()


@pytest.mark.contract("wall_e-10")
def test_wall_e_10_dotted_overrides_and_sections_mean_the_same_key():
    assert load_cfg({"training": {"strategy": "ddp"}}).training.strategy == "ddp"
    assert load_cfg({}, ["training.strategy=ddp"]) == load_cfg({"training": {"strategy": "ddp"}})
    with pytest.raises(ConfigError, match=r"key 'training.ds_config' is 'training.strategy' here"):
        load_cfg({"training": {"ds_config": "ds.json"}})


@pytest.mark.contract("wall_e-11")
def test_wall_e_11_no_optional_package_is_imported_with_the_runner():
    code = "import sys, simtrain.runner, simtrain.evaluation; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"wandb", "ray", "optuna", "tensorboard", "sentence_transformers"} & set(loaded)


@pytest.mark.contract("wall_e-14")
def test_wall_e_14_unknown_keys_and_types_are_errors_that_name_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown key 'training.gradient_acumulation'; did you mean 'gradient_acc"):
        runner({"training": {"gradient_acumulation": 2}})
    with pytest.raises(ConfigError, match=r"unknown scheduler type 'cosin'; did you mean 'cosine'"):
        runner({"scheduler": {"type": "cosin"}})
    with pytest.raises(ConfigError, match=r"unknown model type 'Tiney'"):
        BaseModel.from_cfg({"type": "Tiney"})


@pytest.mark.contract("wall_e-26")
def test_wall_e_26_tests_in_training_are_off_by_default_and_triggers_can_be_off():
    training = load_cfg().training
    assert (training.test_interval_epoch, training.test_interval_iter) == (None, None)
    off = load_cfg({"training": {"valid_interval_iter": None, "valid_interval_epoch": None}}).training
    assert (off.valid_interval_iter, off.valid_interval_epoch) == (None, None)


@pytest.mark.contract("wall_e-27")
def test_wall_e_27_unknown_arguments_of_the_runner_are_errors():
    with pytest.raises(TypeError, match="epoch_count"):
        runner(on_cpu(), epoch_count=3)
    with pytest.raises((SimtrainError, TypeError), match="callback"):
        runner(on_cpu(), callbacks=[object()])
