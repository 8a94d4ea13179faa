"""A step that is called alone fills and uses the caches, with the numbers that it has without them."""

import pytest
import torch
from torch import nn

from simtrain import CacheConfig, TrainableModel
from simtrain.data import PairsSimilarityDataLoader, SimilarityPairSample
from simtrain.encoders import ModuleEncoder
from simtrain.heads import LinearHead
from simtrain.losses import MultipleNegativesRankingLoss


class Counted(nn.Linear):
    """A frozen layer that counts what it is given."""

    n_items = 0

    def forward(self, batch):
        self.n_items += len(batch)
        return super().forward(batch)


def make_model(cache):
    torch.manual_seed(0)
    return TrainableModel(
        encoders=ModuleEncoder(Counted(4, 6), 6),
        head=lambda size: LinearHead(size, 3),
        loss=MultipleNegativesRankingLoss(),
        cache=cache,
    )


SAMPLES = [
    SimilarityPairSample(*torch.randn(2, 4, generator=torch.Generator().manual_seed(number)).unbind())
    for number in range(8)
]


@pytest.mark.parametrize("raw", [True, False])
def test_steps_alone_train_through_the_cache_as_without_it(tmp_path, raw):
    batches = [SAMPLES[:4], SAMPLES[4:]] if raw else list(PairsSimilarityDataLoader(SAMPLES, batch_size=4))
    weights, losses, forwards = [], [], []
    for cache in (None, CacheConfig("cpu"), CacheConfig("disk", save_dir=str(tmp_path))):
        model = make_model(cache)
        optimizer = torch.optim.SGD(model.model.head.parameters(), lr=0.1)
        for _ in range(3):
            for batch in batches:
                optimizer.zero_grad()
                loss = model.train_step(batch)["loss"]
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        losses.append(model.valid_step(batches[0])["loss"].item())
        weights.append(model.model.head.state_dict())
        forwards.append(model.model.encoders["default"].module.n_items)
    assert forwards == [7 * 8, 16, 16], "through a cache, every item is encoded once"
    assert losses[:7] == pytest.approx(losses[7:14], rel=1e-5)
    assert losses[:7] == pytest.approx(losses[14:], rel=1e-5)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value)
        torch.testing.assert_close(weights[2][name], value)
