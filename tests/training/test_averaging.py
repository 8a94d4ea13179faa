import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from simtrain import CacheConfig, CacheType, Runner, XbmConfig, registry
from simtrain.data import GroupSimilarityDataLoader, PairsSimilarityDataLoader
from simtrain.errors import ConfigError
from simtrain.training.averaging import WeightEMA
from tests.contract.seed_models import MMResNet50, ToyModel, image_batches, toy_batches
from tests.training.models import BagEncoder, group_model, group_samples, pair_model, pair_samples

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*exists and is not empty.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
]


class Watch(lightning.pytorch.Callback):
    """Weights after every update, and those in place while validating."""

    def __init__(self):
        self.raw, self.validated = [], []

    def on_train_batch_end(self, trainer, module, *args):
        self.raw.append(module.linear.weight.detach().clone())

    def on_validation_batch_start(self, trainer, module, *args):
        self.validated.append(module.linear.weight.detach().clone())


def trainer(*callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(
        accelerator="cpu",
        enable_model_summary=False,
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        **{**quiet, **options},
    )


def loader(n=3):
    return DataLoader(toy_batches(n), batch_size=None)


def average(weights, decay):
    value = weights[0].double()
    for weight in weights[1:]:
        value = decay * value + (1 - decay) * weight.double()
    return value.float()


@pytest.mark.parametrize(("every", "start"), [(1, 0), (2, 0), (1, 2), (2, 1)])
def test_the_average_follows_its_formula_is_validated_with_and_stays_in_the_model(every, start):
    watch, model = Watch(), ToyModel()
    trainer(watch, WeightEMA(0.7, every, start), max_epochs=3).fit(model, loader(), loader(1))
    taken = [weight for step, weight in enumerate(watch.raw) if step >= start and (step - start) % every == 0]
    torch.testing.assert_close(model.linear.weight, average(taken, 0.7))
    first = [weight for step, weight in enumerate(watch.raw[:3]) if step >= start and (step - start) % every == 0]
    torch.testing.assert_close(watch.validated[0], average(first, 0.7))


def test_training_goes_on_with_the_raw_weights():
    torch.manual_seed(0)
    averaged, plain = ToyModel(), ToyModel()
    plain.load_state_dict(averaged.state_dict())
    with_average, without = Watch(), Watch()
    trainer(with_average, WeightEMA(0.9), max_epochs=3).fit(averaged, loader(), loader(1))
    trainer(without, max_epochs=3).fit(plain, loader(), loader(1))
    assert all(torch.equal(a, b) for a, b in zip(with_average.raw, without.raw, strict=True))


def test_an_average_that_never_starts_leaves_the_weights_alone():
    watch, model = Watch(), ToyModel()
    trainer(watch, WeightEMA(0.9, start_step=100), max_epochs=2).fit(model, loader(), loader(1))
    assert torch.equal(model.linear.weight, watch.raw[-1])
    assert torch.equal(watch.validated[0], watch.raw[2])


def test_a_checkpoint_holds_the_average_and_resumes_to_the_same_weights(tmp_path):
    torch.manual_seed(0)
    whole, first = ToyModel(), ToyModel()
    first.load_state_dict(whole.state_dict())
    trainer(WeightEMA(0.8), max_epochs=4).fit(whole, loader())
    watch = Watch()
    saving = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path / "a", "half", save_on_train_epoch_end=True)
    trainer(watch, WeightEMA(0.8), saving, max_epochs=2, enable_checkpointing=True).fit(first, loader())
    loaded = ToyModel()
    assert loaded.load_checkpoint(str(tmp_path / "a" / "half.ckpt")) == []
    torch.testing.assert_close(loaded.linear.weight, average(watch.raw, 0.8))
    resumed = ToyModel()
    again = trainer(WeightEMA(0.8), saving, max_epochs=4, enable_checkpointing=True)
    again.fit(resumed, loader(), ckpt_path=tmp_path / "a" / "half.ckpt", weights_only=True)
    assert torch.equal(resumed.linear.weight, whole.linear.weight)


def test_buffers_are_the_models_own():
    torch.manual_seed(0)
    averaged, plain = MMResNet50(), MMResNet50()
    plain.load_state_dict(averaged.state_dict())
    data = DataLoader(image_batches(3), batch_size=None)
    trainer(WeightEMA(0.9), max_epochs=1).fit(averaged, data)
    trainer(max_epochs=1).fit(plain, data)
    assert torch.equal(averaged.resnet.norm.running_mean, plain.resnet.norm.running_mean)
    assert not torch.equal(averaged.resnet.fc.weight, plain.resnet.fc.weight)


def test_the_memory_and_frozen_encoders_are_untouched():
    model = group_model(xbm=XbmConfig(buffer_size=16, start_iteration=1))
    before = {name: value.clone() for name, value in model.model.encoders.state_dict().items()}
    trainer(WeightEMA(0.9), max_epochs=1).fit(model, GroupSimilarityDataLoader(group_samples(), batch_size=8))
    assert all(torch.equal(value, before[name]) for name, value in model.model.encoders.state_dict().items())
    groups = model._memory.buffer.get()[1]
    assert set(groups.tolist()) <= set(range(6))
    assert len(groups) == 16


def test_the_embeddings_in_a_cache_are_not_copied():
    model = pair_model(encoders=BagEncoder(), cache=CacheConfig(CacheType.CPU))
    prepared = model.setup_dataloader(PairsSimilarityDataLoader(pair_samples(), batch_size=8))
    callback = WeightEMA(0.9)
    trainer(callback, max_epochs=1).fit(model, prepared)
    (cache,) = model.cached._caches.values()
    (copied,) = callback._average_model.module.cached._caches.values()
    assert copied is cache


@pytest.mark.parametrize("cfg", [{"decay": 0.5}, {"decay": 0.5, "every_n_steps": 2}])
def test_the_runner_averages_as_its_config_says(cfg):
    torch.manual_seed(0)
    model, twin = ToyModel(), ToyModel()
    twin.load_state_dict(model.state_dict())
    Runner(model, 2, loader(), cfg={"training": {"ema": cfg}}).fit()
    trainer(WeightEMA(**cfg), max_epochs=2).fit(twin, loader())
    assert torch.equal(model.linear.weight, twin.linear.weight)


def test_tests_in_training_measure_the_average_and_training_goes_on_with_the_raw_weights():
    class Tested(Watch):
        def on_test_batch_start(self, trainer, module, *args):
            self.validated.append(module.linear.weight.detach().clone())

    torch.manual_seed(0)
    watch, plain, model, twin = Tested(), Watch(), ToyModel(), ToyModel()
    twin.load_state_dict(model.state_dict())
    cfg = {"ema": {"decay": 0.7}, "test_interval_epoch": 1, "progress_bar": False}
    runner = Runner(model, 2, loader(), None, loader(1), cfg={"training": cfg}, callbacks=[watch])
    runner.fit()
    trainer(plain, max_epochs=2).fit(twin, loader())
    assert all(torch.equal(a, b) for a, b in zip(watch.raw, plain.raw, strict=True))
    torch.testing.assert_close(watch.validated[0], average(watch.raw[:3], 0.7))
    runner.test()
    assert torch.equal(watch.validated[-1], model.linear.weight), "a test afterwards has what training ended with"


def test_wrong_settings_are_refused_early():
    assert registry.callbacks.get("EMA") is WeightEMA
    with pytest.raises(ConfigError, match="decay of an average should be at least 0 and below 1, got 1"):
        WeightEMA(decay=1)
    with pytest.raises(ConfigError, match="every_n_steps should be at least 1 and start_step at least 0, got 0 and 0"):
        WeightEMA(every_n_steps=0)
    with pytest.raises(ConfigError, match="callback 'EMA' has no setting 'dekay'; did you mean 'decay'"):
        Runner(ToyModel(), 1, loader(), cfg={"training": {"ema": {"dekay": 0.1}}})


def test_frozen_weights_are_not_averaged():
    class Moved(lightning.pytorch.Callback):
        def on_train_batch_start(self, trainer, module, *args):
            module.linear.bias.data.add_(1.0)

    model = ToyModel().freeze_parameters(regex="bias")
    callback = WeightEMA(0.5)
    before = model.linear.bias.detach().clone()
    trainer(Moved(), callback, max_epochs=1).fit(model, loader())
    # Nobody moves a frozen weight: what the average has of it is what it was, and costs nothing to keep.
    assert torch.equal(callback._average_model.module.linear.bias, before)


def test_a_checkpoint_in_training_holds_the_buffers_of_that_moment(tmp_path):
    class Save(lightning.pytorch.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 1:
                trainer.save_checkpoint(tmp_path / "now.ckpt")
                self.mean = module.resnet.norm.running_mean.clone()

    saving, model = Save(), MMResNet50()
    trainer(WeightEMA(0.9), saving, max_epochs=1).fit(model, DataLoader(image_batches(3), batch_size=None))
    state = torch.load(tmp_path / "now.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["resnet.norm.running_mean"], saving.mean)
