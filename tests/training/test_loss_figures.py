"""What losses leave for the log, in training."""

import lightning
import pytest
import torch

from simtrain import XbmConfig, load_cfg
from simtrain.data import GroupSimilarityDataLoader, PairsSimilarityDataLoader
from simtrain.losses import (
    CombinedLoss,
    MatryoshkaLoss,
    NTXentLoss,
    SimilarityDistillationLoss,
    SupConLoss,
    TripletLoss,
)
from simtrain.training import OptimWrapper
from simtrain.training.build import build_model
from tests.training.models import group_model, group_samples, pair_model, pair_samples

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:The number of training batches.*"),
]


def train(model, loader, tmp_path, **options):
    trainer = lightning.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        accelerator="cpu",
        **options,
    )
    trainer.fit(model, loader)
    return trainer


def test_each_part_of_a_sum_is_logged(tmp_path):
    model = group_model(loss=CombinedLoss({"near": TripletLoss(), "many": SupConLoss()}, {"many": 0.5}))
    trainer = train(model, GroupSimilarityDataLoader(group_samples(), batch_size=12), tmp_path)
    logged = {name: float(value) for name, value in trainer.logged_metrics.items()}
    assert logged["train_loss"] == pytest.approx(logged["train_loss_near"] + 0.5 * logged["train_loss_many"])
    assert logged["train_near_n_active"] > 0


def test_a_batch_with_nothing_to_learn_from_is_seen_in_the_log(tmp_path):
    model = group_model(loss=TripletLoss())
    samples = group_samples(12, groups=12)
    trainer = train(model, GroupSimilarityDataLoader(samples, batch_size=12), tmp_path)
    assert trainer.logged_metrics["train_loss"] == 0
    assert trainer.logged_metrics["train_n_active"] == 0


def test_the_memory_s_share_and_the_refused_rows_are_logged_by_stage(tmp_path):
    model = group_model(loss=SupConLoss(), xbm=XbmConfig(buffer_size=16, start_iteration=1, weight=2.0))
    trainer = train(model, GroupSimilarityDataLoader(group_samples(), batch_size=8), tmp_path)
    logged = {name: float(value) for name, value in trainer.logged_metrics.items()}
    assert 0 < logged["train_xbm_loss"] < logged["train_loss"]
    assert logged["train_xbm_refused"] == 0
    assert logged["train_xbm_n_active"] > 0


def test_a_learnt_temperature_reaches_the_optimizer_and_the_log(tmp_path):
    model = group_model(loss=MatryoshkaLoss(NTXentLoss({"initial": 0.2}), sizes=[4, 2]))
    trainer = train(model, GroupSimilarityDataLoader(group_samples(), batch_size=12), tmp_path)
    after = model.loss.loss.temperature().item()
    assert after != pytest.approx(0.2, abs=1e-6)
    assert "_loss.loss.temperature.log_temperature" in model.state_dict()
    assert trainer.logged_metrics["train_temperature_4"] == trainer.logged_metrics["train_temperature_2"]


def test_a_schedule_moves_with_the_training_batches_only(tmp_path):
    loss = SupConLoss({"start": 0.4, "end": 0.1, "steps": 2})
    model, samples = group_model(loss=loss), group_samples()
    trainer = train(model, GroupSimilarityDataLoader(samples, batch_size=12), tmp_path)
    assert trainer.logged_metrics["train_temperature"] == pytest.approx(0.2)
    assert loss.temperature() == pytest.approx(0.1)
    alone = group_model(loss=SupConLoss({"start": 0.4, "end": 0.1, "steps": 2}))
    alone.valid_step(samples[:12])
    alone.train_step(samples[:12])
    assert alone.loss.temperature() == pytest.approx(0.2)


def test_an_optim_wrapper_gets_the_figures_too():
    model = group_model(loss=CombinedLoss({"near": SupConLoss({"start": 0.4, "end": 0.1, "steps": 2})}))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    results = model.train_step(group_samples(12), optim_wrapper=wrapper)
    assert results["near_temperature"] == 0.4
    assert not results["loss"].requires_grad
    assert not results["loss_near"].requires_grad


def test_distillation_looks_items_up_by_their_numbers(tmp_path):
    samples = pair_samples(24)
    table = torch.randn(48, 3)
    model = pair_model(loss=SimilarityDistillationLoss(table, form="mse"))
    seen = []
    inner = model.loss.forward
    model.loss.forward = lambda embeddings, items: (seen.append(items), inner(embeddings, items))[1]
    trainer = train(model, PairsSimilarityDataLoader(samples, batch_size=8, shuffle=True), tmp_path)
    assert sorted(torch.cat(seen).tolist()) == list(range(48))
    assert trainer.logged_metrics["train_loss"] > 0


def test_a_nested_loss_from_a_config():
    inner = {"type": "TripletLoss", "margin": 0.2}
    encoder = {"type": "PrecomputedEncoder", "embedding_size": 4}
    model = build_model(
        load_cfg({"encoders": encoder, "loss": {"type": "MatryoshkaLoss", "loss": inner, "sizes": [4, 2]}})
    )
    assert model.loss.loss.margin == 0.2
    assert model.loss.sizes == [4, 2]
