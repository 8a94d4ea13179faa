"""A trainable model under a stock trainer: loaders, caches, figures."""

import pytest
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

from simtrain import (
    AttachedMetric,
    CacheConfig,
    CacheType,
    TrainStage,
)
from simtrain.data import GroupSimilarityDataLoader, PairsSimilarityDataLoader, SimilarityPairSample
from simtrain.errors import CacheError, ConfigError, DataError
from simtrain.metrics import RetrievalPrecision
from tests.training.models import ENCODED, BagEncoder, group_model, group_samples, pair_model, pair_samples
from tests.training.stock_trainer import trainer

pytestmark = [
    # Lightning's advice on loaders and on frozen encoders, which are in eval mode on purpose.
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
]


@pytest.mark.parametrize("cache", [None, CacheConfig(CacheType.CPU)])
def test_a_stock_trainer_trains_with_the_users_loader_and_leaves_it_as_it_was(cache):
    loader = PairsSimilarityDataLoader(pair_samples(), batch_size=8, shuffle=True)
    dataset, collate = loader.dataset, loader.collate_fn
    model = pair_model(cache=cache, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01))
    before = model.valid_step(pair_samples())["loss"].item()
    for _ in range(2):  # one loader serves any number of runs
        trainer(max_epochs=5).fit(model, loader)
    assert loader.dataset is dataset
    assert loader.collate_fn is collate
    assert next(iter(loader)).objects
    assert model.valid_step(pair_samples())["loss"].item() < before


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize(
    ("make", "samples", "loader"),
    [
        (pair_model, pair_samples, PairsSimilarityDataLoader),
        (group_model, group_samples, GroupSimilarityDataLoader),
    ],
)
def test_cached_training_gives_the_same_weights_as_uncached(tmp_path, make, samples, loader, prepared):
    states = []
    for cache in (None, CacheConfig(CacheType.CPU), CacheConfig(save_dir=tmp_path)):
        model = make(cache=cache)
        torch.manual_seed(5)
        data = loader(samples(), batch_size=8, shuffle=True)
        trainer().fit(model, model.setup_dataloader(data) if prepared else data)
        states.append(model.model.head.state_dict())
    for other in states[1:]:
        for name, value in states[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)


def test_with_a_cache_each_distinct_item_is_encoded_once():
    model = pair_model(cache=CacheConfig(CacheType.CPU))
    samples = pair_samples()
    ENCODED.clear()
    loader = PairsSimilarityDataLoader(samples, batch_size=8, shuffle=True)
    trainer(max_epochs=3).fit(model, loader, PairsSimilarityDataLoader(samples, batch_size=8))
    distinct = {sample.obj_a for sample in samples} | {sample.obj_b for sample in samples}
    assert sum(ENCODED) == len(distinct)


def test_a_loader_prepared_for_other_weights_is_refused():
    encoder = BagEncoder()
    model = pair_model(encoders=encoder, cache=CacheConfig(CacheType.CPU))
    prepared = model.setup_dataloader(PairsSimilarityDataLoader(pair_samples(), batch_size=8))
    encoder.linear.weight.data += 1
    with pytest.raises(CacheError, match="call setup_dataloader\\(\\) again"):
        trainer().fit(model, prepared)


def test_frozen_encoders_stay_as_they_are_and_in_eval_mode():
    encoder = BagEncoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model = pair_model(encoders=encoder)
    modes = []
    model.process_results = lambda *args, **kwargs: modes.append((model.training, encoder.training))
    trainer().fit(model, PairsSimilarityDataLoader(pair_samples(), batch_size=8))
    assert modes
    assert all(mode == (True, False) for mode in modes)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_trainable_encoders_are_trained():
    encoder = BagEncoder(trainable=True)
    before = encoder.linear.weight.detach().clone()
    model = pair_model(encoders=encoder, cache=CacheConfig())
    trainer().fit(model, PairsSimilarityDataLoader(pair_samples(), batch_size=8))
    assert not torch.equal(encoder.linear.weight, before)


def test_losses_and_metrics_are_logged_by_stage_and_results_are_handed_over():
    seen = []
    model = pair_model(metrics=AttachedMetric("precision", RetrievalPrecision(k=1), on_epoch=True))
    model.process_results = lambda embeddings, targets, batch_idx, stage, **kwargs: seen.append((batch_idx, stage))
    loader = PairsSimilarityDataLoader(pair_samples(), batch_size=12)
    runner = trainer(max_epochs=1, num_sanity_val_steps=0)
    runner.fit(model, loader, loader)
    assert {"train_loss", "validation_loss", "precision_train", "precision_validation"} <= set(runner.callback_metrics)
    assert seen == [
        (0, TrainStage.TRAIN),
        (1, TrainStage.TRAIN),
        (0, TrainStage.VALIDATION),
        (1, TrainStage.VALIDATION),
    ]
    tested = trainer().test(model, loader, verbose=False)[0]
    assert set(tested) == {"test_loss", "precision_test"}


def test_the_logged_metric_is_the_mean_over_all_queries_of_the_epoch():
    model = pair_model(metrics=AttachedMetric("p", RetrievalPrecision(k=1), on_epoch=True))
    samples = pair_samples(20)
    reference = RetrievalPrecision(k=1)
    for start in (0, 12):
        result = model.valid_step(samples[start : start + 12])
        reference.update(result["embeddings"], **result["targets"])
    validated = trainer().validate(model, PairsSimilarityDataLoader(samples, batch_size=12), verbose=False)[0]
    assert validated["p_validation"] == pytest.approx(float(reference.compute()))


@pytest.mark.parametrize("cache", [None, CacheConfig(CacheType.CPU)])
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize(
    ("make", "samples", "loader"),
    [
        (pair_model, pair_samples, PairsSimilarityDataLoader),
        (group_model, group_samples, GroupSimilarityDataLoader),
    ],
)
def test_metrics_are_logged_with_and_without_a_cache(make, samples, loader, prepared, cache):
    model = make(cache=cache, metrics=AttachedMetric("p", RetrievalPrecision(k=1), on_epoch=True))
    data = loader(samples(), batch_size=12)
    runner = trainer(max_epochs=1)
    runner.fit(model, model.setup_dataloader(data) if prepared else data)
    assert "p_train" in runner.callback_metrics


@pytest.mark.parametrize("cache", [None, CacheConfig(CacheType.CPU)])
def test_a_plain_data_loader_of_samples_trains_under_a_stock_trainer(cache):
    model = pair_model(cache=cache)
    before = model.model.head.state_dict()["fc_0.weight"].clone()
    trainer().fit(model, DataLoader(pair_samples(), batch_size=8, collate_fn=list))
    assert not torch.equal(model.model.head.state_dict()["fc_0.weight"], before)


def test_torchs_own_collate_is_answered_with_what_to_use():
    with pytest.raises(DataError, match="use PairsSimilarityDataLoader, GroupSimilarityDataLoader"):
        trainer().fit(pair_model(), DataLoader(pair_samples(), batch_size=8))


def test_new_items_can_be_stepped_with_after_a_cached_run():
    model = pair_model(cache=CacheConfig(CacheType.CPU))
    trainer(max_epochs=1).fit(model, PairsSimilarityDataLoader(pair_samples(), batch_size=8))
    fresh = [SimilarityPairSample("brandnew", "itemsnow"), SimilarityPairSample("others", "toosee")]
    expected = pair_model()
    expected.load_state_dict(model.state_dict())
    assert model.valid_step(fresh)["loss"].item() == pytest.approx(expected.valid_step(fresh)["loss"].item(), rel=1e-5)


def test_a_schedule_outside_a_trainer_is_a_clear_error():
    with pytest.raises(ConfigError, match="a schedule needs the number of steps"):
        pair_model(scheduler=lambda optimizer, total: None).configure_optimizers()


def test_two_validation_loaders_are_logged_apart():
    loader = PairsSimilarityDataLoader(pair_samples(), batch_size=12)
    model = pair_model(cache=CacheConfig(CacheType.CPU))
    runner = trainer(max_epochs=1)
    runner.fit(model, loader, [loader, loader])
    assert {"validation_loss/dataloader_idx_0", "validation_loss/dataloader_idx_1"} <= set(runner.callback_metrics)


def test_a_schedule_is_stepped_after_each_optimizer_step():
    from simtrain.training.schedules import linear

    model = pair_model(scheduler=linear, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0))
    runner = trainer(max_epochs=2)
    runner.fit(model, PairsSimilarityDataLoader(pair_samples(24), batch_size=8))
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0)


def test_lightning_sees_the_steps():
    for name in ("training_step", "validation_step", "test_step", "configure_optimizers"):
        assert is_overridden(name, pair_model())
