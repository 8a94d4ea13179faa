"""A memory that a moving average of the model fills."""

import copy

import lightning
import pytest
import torch

from simtrain import CacheConfig, XbmConfig
from simtrain.data import GroupSimilarityDataLoader
from simtrain.heads import SkipConnectionHead
from tests.training.models import BagEncoder, group_model, group_samples


def trained(model, n_steps=4):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for step in range(n_steps):
        results = model.train_step(group_samples()[4 * step : 4 * step + 8])
        optimizer.zero_grad()
        results["loss"].backward()
        optimizer.step()
    return results


def test_with_momentum_the_memory_is_filled_by_a_moving_average():
    model = group_model(
        encoders=BagEncoder(trainable=True), xbm=XbmConfig(buffer_size=8, start_iteration=0, momentum=0.9)
    )
    model.eval()  # no dropout: embeddings can be computed again
    average = [weight.detach().clone() for weight in model.model.parameters()]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for step in range(3):
        samples = group_samples()[8 * step : 8 * step + 8]
        for mean, weight in zip(average, model.model.parameters(), strict=True):
            mean.lerp_(weight.detach(), 0.1 if step else 1.0)
        loss = model.train_step(samples)["loss"]
        reference = copy.deepcopy(model.model)
        for weight, mean in zip(reference.parameters(), average, strict=True):
            weight.data.copy_(mean)
        expected = reference([sample.obj for sample in samples] and reference.collate([s.obj for s in samples]))
        torch.testing.assert_close(model._memory.buffer.get()[0], expected.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not torch.allclose(expected, model.model(model.model.collate([s.obj for s in samples])))


@pytest.mark.filterwarnings("ignore:.*(many workers|LeafSpec|eval mode at the start|logging interval).*")
def test_the_average_of_a_cached_model_is_in_training_mode_after_a_validation():
    weights = []
    for cache in (None, CacheConfig("cpu")):
        config = XbmConfig(buffer_size=8, start_iteration=0, momentum=0.5)
        model = group_model(head=lambda size: SkipConnectionHead(size, dropout=0.5), cache=cache, xbm=config)
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        loaders = [GroupSimilarityDataLoader(group_samples(), batch_size=8) for _ in range(2)]
        torch.manual_seed(0)
        lightning.Trainer(max_epochs=2, accelerator="cpu", **quiet).fit(model, *loaders)
        weights.append(model.model.head.fc_0.weight)
    torch.testing.assert_close(*weights)


def test_the_average_is_in_checkpoints_and_never_trained():
    config = XbmConfig(buffer_size=8, start_iteration=0, momentum=0.5)
    model, other = (group_model(xbm=config) for _ in range(2))
    trained(model)
    names = [name for name in model.state_dict() if name.startswith("_memory.encoder.")]
    assert any("head" in name for name in names)
    assert not any("encoders" in name for name in names), "frozen encoders are shared, not copied"
    assert all(not parameter.requires_grad for parameter in model._memory.encoder.parameters())
    other.load_state_dict(model.state_dict())
    torch.manual_seed(0)
    values = []
    for one in (model, other):
        torch.manual_seed(0)
        values.append(one.train_step(group_samples()[:8])["loss"])
    assert values[0] == values[1]
