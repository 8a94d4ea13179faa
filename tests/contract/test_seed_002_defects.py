"""What the runner that this one follows got wrong, and this one must not."""

import json

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler

from simtrain import BaseCallBack, Runner, TrainableModel
from simtrain.data import GroupSimilarityDataLoader, PKSampler
from simtrain.errors import ConfigError
from tests.contract.runner_parts import Mean, Modes, loader
from tests.contract.seed_models import ToyModel, toy_batches
from tests.training.models import group_model, group_samples


class Rates(BaseCallBack):
    """The rate of every batch."""

    def __init__(self):
        self.rates = []

    def before_running_batch(self):
        self.rates.append(self.runner.optimizer.param_groups[0]["lr"])


@pytest.mark.contract("wall_e-2", "ruling-12", "002-13")
def test_wall_e_2_without_an_optimizer_a_cpu_trains_with_the_configs_adamw():
    model, twin = ToyModel(), ToyModel()
    twin.load_state_dict(model.state_dict())
    cfg = {"optimizer": {"type": "AdamW", "lr": 0.1, "weight_decay": 0.2}, "training": {"device": "cpu"}}
    Runner(model, 2, loader(3), cfg=cfg).fit()
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.1, weight_decay=0.2)
    for batch in toy_batches(3) * 2:
        optimizer.zero_grad()
        twin.train_step(batch)["loss"].backward()
        optimizer.step()
    torch.testing.assert_close(model.linear.weight, twin.linear.weight)


@pytest.mark.contract("wall_e-3")
def test_wall_e_3_an_unknown_schedule_is_an_error_and_the_known_ones_are_there():
    with pytest.raises(ConfigError, match="unknown scheduler type 'cosin'; did you mean 'cosine'"):
        Runner(ToyModel(), 1, loader(), cfg={"scheduler": {"type": "cosin"}})
    for kind in ("cosine", "linear", "step", "constant"):
        watch = Rates()
        cfg = {"optimizer": {"type": "SGD", "lr": 1.0}, "scheduler": {"type": kind, "warmup_rate": 0.5}}
        Runner(ToyModel(), 2, loader(4), cfg=cfg, callbacks=[watch]).fit()
        assert watch.rates[:4] == [0.25, 0.5, 0.75, 1.0], kind


@pytest.mark.contract("wall_e-4", "002-17")
@pytest.mark.parametrize("accumulated", [1, 2])
def test_wall_e_4_a_schedule_goes_over_the_whole_run_by_optimizer_steps(accumulated):
    watch = Rates()
    cfg = {
        "optimizer": {"type": "SGD", "lr": 1.0},
        "scheduler": {"type": "linear", "warmup_rate": 0.0},
        "training": {"gradient_accumulation": accumulated},
    }
    Runner(ToyModel(), 2, loader(4), cfg=cfg, callbacks=[watch]).fit()
    steps = 8 // accumulated
    assert watch.rates == pytest.approx([1 - (batch // accumulated) / steps for batch in range(8)])


@pytest.mark.contract("wall_e-9")
@pytest.mark.parametrize("cfg", [None, {}, {"seed": 1}, {"training": {}}])
def test_wall_e_9_a_runner_needs_no_config_and_no_folder(cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Runner(ToyModel(), 1, loader(1), loader(1), cfg=cfg).fit()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.contract("002-6", "002-11")
def test_002_6_the_config_and_the_log_are_in_the_runs_folder(tmp_path):
    class Talk(BaseCallBack):
        def before_train(self):
            self.runner.logger.info("said in training")

    run = tmp_path / "run"
    Runner(ToyModel(), 1, loader(1), cfg={"run_dir": str(run), "seed": 7}, callbacks=[Talk()]).fit()
    assert "seed: 7" in (run / "config.yaml").read_text()
    assert json.loads((run / "environment.json").read_text())["seed"] == 7
    log = (run / "run.log").read_text()
    assert "said in training" in log
    assert "ToyModel" in log
    silent = tmp_path / "silent"
    cfg = {"run_dir": str(silent), "log": {"level": "WARNING"}}
    Runner(ToyModel(), 1, loader(1), cfg=cfg, callbacks=[Talk()]).fit()
    text = (silent / "run.log").read_text() if (silent / "run.log").exists() else ""
    assert "said in training" not in text


@pytest.mark.contract("002-6", "002-5")
def test_002_5_what_broke_a_run_off_is_in_its_log(tmp_path):
    class Failing(ToyModel):
        def train_step(self, batch):
            raise ValueError("no such batch")

    with pytest.raises(ValueError, match="no such batch"):
        Runner(Failing(), 1, loader(1), cfg={"run_dir": str(tmp_path)}).fit()
    log = (tmp_path / "run.log").read_text()
    assert "ValueError: no such batch" in log
    assert "Traceback" in log


@pytest.mark.contract("wall_e-16")
def test_wall_e_16_loaders_with_batch_samplers_train_and_keep_their_settings():
    data = torch.utils.data.TensorDataset(torch.randn(8, 10), torch.randn(8, 1))

    def collate(rows):
        return {"x": torch.stack([x for x, _ in rows]), "y": torch.stack([y for _, y in rows])}

    sampler = BatchSampler(RandomSampler(data), 3, drop_last=False)
    given = DataLoader(data, batch_sampler=sampler, collate_fn=collate)
    Runner(ToyModel(), 1, given).fit()
    runner = Runner(ToyModel(), 1)
    runner.state.world_size = 2
    wrapped = runner.wrap_dataloader(given)
    assert isinstance(wrapped.sampler, DistributedSampler)
    assert [len(batch["x"]) for batch in wrapped] == [3, 1]
    samples = group_samples(24, 4)
    grouped = GroupSimilarityDataLoader(samples, batch_size=8, sampler=PKSampler(samples, batch_size=8, per_group=2))
    Runner(group_model(), 1, grouped).fit()
    assert runner.wrap_dataloader(grouped) is grouped


@pytest.mark.contract("wall_e-22")
def test_wall_e_22_figures_belong_to_a_run_and_go_with_it():
    first = Runner(ToyModel(), 1, valid_data_loader=loader(), valid_evaluator={"mine": Mean()})
    first.valid()
    assert set(Runner(ToyModel(), 1, valid_data_loader=loader()).valid()) == {"validation_loss"}


@pytest.mark.contract("wall_e-23", "002-17")
def test_wall_e_23_validation_and_tests_run_in_the_precision_of_training():
    class Noting(Modes):
        def compute_loss(self, x, y):
            self.seen.append(self.linear(x).dtype)
            return super().compute_loss(x, y)

    model = Noting()
    runner = Runner(model, 1, loader(1), loader(1), loader(1), cfg={"training": {"precision": "bf16-mixed"}})
    runner.fit()
    runner.test()
    assert [one for one in model.seen if isinstance(one, torch.dtype)] == [torch.bfloat16] * 3


@pytest.mark.contract("wall_e-26")
def test_wall_e_26_tests_in_training_are_off_and_every_trigger_can_be():
    model = Modes()
    never = {"valid_interval_epoch": None, "valid_interval_iter": None, "valid_begin_iter": None}
    Runner(model, 2, loader(2), test_data_loader=loader(1), cfg={"training": never}).fit()
    assert [step for step, *_ in model.seen] == ["train"] * 4


@pytest.mark.contract("002-17")
def test_002_17_clipping_bounds_each_step():
    model, twin = ToyModel(), ToyModel()
    twin.load_state_dict(model.state_dict())
    cfg = {"optimizer": {"type": "SGD", "lr": 0.1}, "training": {"grad_clip": 0.5, "gradient_accumulation": 2}}
    Runner(model, 1, loader(3), cfg=cfg).fit()
    optimizer, data = torch.optim.SGD(twin.parameters(), lr=0.1), toy_batches(3)
    for window in (data[:2], data[2:]):  # the last one counts its own batches
        optimizer.zero_grad()
        torch.stack([twin.train_step(batch)["loss"] for batch in window]).mean().backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        optimizer.step()
    torch.testing.assert_close(model.linear.weight, twin.linear.weight)


def test_a_similarity_model_has_evaluators_of_the_runner_too():
    model = group_model()
    assert isinstance(model, TrainableModel)
    data = GroupSimilarityDataLoader(group_samples(24, 4), batch_size=8)
    retrieval = {"type": "SetRetrieval", "k": [1], "names": ["recall@1"]}
    runner = Runner(model, 1, data, data, train_evaluator=retrieval, valid_evaluator=retrieval)
    seen = {}

    class Look(BaseCallBack):
        def after_running_epoch(self):
            seen.update(self.runner.state.trainer.callback_metrics)

    runner.extend_callbacks([Look()])
    runner.fit()
    assert float(seen["recall@1_validation"]) == pytest.approx(runner.valid()["recall@1"])
    assert float(seen["recall@1_train"]) == pytest.approx(float(seen["recall@1_validation"]))
