"""Training without a cache names the encoder and the item that give NaN."""

import lightning
import pytest
import torch
from torch import nn

from simtrain import CacheConfig, Runner, TrainableModel
from simtrain.data import GroupSimilarityDataLoader, SimilarityGroupSample
from simtrain.encoders import ModuleEncoder, PrecomputedEncoder
from simtrain.errors import DataError
from simtrain.heads import LinearHead
from simtrain.losses import TripletLoss

N = 12


class Logarithm(nn.Module):
    """Gives NaN for a negative value."""

    def forward(self, batch):
        return batch.log()


def samples(bad=None):
    values = torch.rand(N, 4, generator=torch.Generator().manual_seed(0)) + 1
    if bad is not None:
        values[bad, 2] = -1.0
    return [SimilarityGroupSample(values[number], number % 3) for number in range(N)]


def make_model(cache=None, encoder=None):
    encoders = {"plain": ModuleEncoder(nn.Identity(), 4), "logarithm": encoder or ModuleEncoder(Logarithm(), 4)}
    # A loss that hides NaN: nothing is above its margin.
    return TrainableModel(
        encoders=encoders, head=lambda size: LinearHead(size, 3), loss=TripletLoss(margin=0.1), cache=cache
    )


def fit(way, model, loader):
    if way == "runner":
        Runner(model, 1, loader).fit()
    else:
        words = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        lightning.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **words).fit(model, loader)


@pytest.mark.parametrize("way", ["trainer", "runner"])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:.*val_dataloader.*:UserWarning")
def test_training_names_encoder_and_item_and_changes_no_weight(way, workers):
    model = make_model()
    before = [parameter.clone() for parameter in model.parameters()]
    loader = GroupSimilarityDataLoader(samples(bad=7), batch_size=N, num_workers=workers)
    message = "encoder 'logarithm' gives an embedding with NaN or infinite values for item 7 of the batch"
    with pytest.raises(DataError, match=message):
        fit(way, model, loader)
    assert all(map(torch.equal, before, model.parameters()))


def test_a_step_alone_shows_the_item_too():
    with pytest.raises(DataError, match=r"'logarithm' .* item 2 of the batch, tensor\("):
        make_model().train_step(samples(bad=2))
    batch = next(iter(GroupSimilarityDataLoader(samples(bad=9), batch_size=4, sampler=[11, 10, 9, 8])))
    with pytest.raises(DataError, match="item 2 of the batch, row 9 of the data set"):
        make_model().valid_step(batch)


def test_a_trained_encoder_names_an_item_but_is_no_scapegoat_for_broken_weights():
    encoder = ModuleEncoder(nn.Sequential(nn.Linear(4, 4), Logarithm(), nn.Dropout(0.1)), 4, trainable=True)
    with torch.no_grad():
        encoder.module[0].weight.copy_(torch.eye(4))
        encoder.module[0].bias.zero_()
    model = make_model(encoder=encoder)
    model.train()
    with pytest.raises(DataError, match=r"encoder 'logarithm' .* item 5 of the batch"):
        model.train_step(samples(bad=5))
    assert encoder.module.training
    with torch.no_grad():
        encoder.module[0].weight.fill_(float("nan"))
    loss = model.train_step(samples())["loss"]  # as before: what is done about the loss is the loop's affair
    assert loss.ndim == 0


def test_a_batch_norm_that_an_item_has_spoilt_is_no_scapegoat():
    encoder = ModuleEncoder(nn.BatchNorm1d(4), 4, trainable=True)
    bad = samples()
    bad[5].obj[1] = float("nan")
    # Its running means are NaN by now; the other encoder knows where that came from.
    with pytest.raises(DataError, match=r"encoder 'plain' .* item 5 of the batch"):
        make_model(encoder=encoder).train_step(bad)


def test_large_but_finite_embeddings_are_no_fault():
    model = TrainableModel(encoders=PrecomputedEncoder(4), loss=TripletLoss(margin=0.1))
    big = [SimilarityGroupSample(torch.full((4,), 3e38), number % 2) for number in range(4)]
    model.valid_step(big)


def test_a_cache_finds_it_while_it_is_filled():
    with pytest.raises(DataError, match="encoder 'logarithm' gives an embedding that is not finite for item 4"):
        Runner(make_model(CacheConfig("cpu")), 1, GroupSimilarityDataLoader(samples(bad=4), batch_size=4)).fit()
