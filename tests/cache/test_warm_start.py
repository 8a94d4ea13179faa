"""A second run over the same data with a DISK cache: training, validation and evaluation call no encoder."""

import torch

from simtrain import Runner, TrainableModel, evaluate
from simtrain.cache import CacheConfig, CachedModel
from simtrain.data import PairsSimilarityDataLoader, SimilarityPairSample
from simtrain.heads import SkipConnectionHead
from simtrain.losses import MultipleNegativesRankingLoss


def run(make_encoder, folder):
    torch.manual_seed(0)
    encoder = make_encoder(size=8)
    model = TrainableModel(
        encoders=encoder,
        head=SkipConnectionHead,
        loss=MultipleNegativesRankingLoss(),
        cache=CacheConfig("disk", save_dir=folder),
    )
    samples = [SimilarityPairSample(f"query {number}", f"document {number}") for number in range(24)]
    train = PairsSimilarityDataLoader(samples[:16], batch_size=8)
    Runner(
        model,
        epochs=2,
        train_data_loader=train,
        valid_data_loader=PairsSimilarityDataLoader(samples[16:20], batch_size=4),
        cfg={"training": {"device": "cpu", "progress_bar": False}},
    ).fit()
    figures = evaluate(CachedModel(model.model, CacheConfig("disk", save_dir=folder)), samples[20:]).metrics
    return encoder.batches, figures


def test_a_second_run_makes_no_encoder_forward(make_encoder, tmp_path):
    first, figures = run(make_encoder, tmp_path)
    assert sum(first) == 48
    second, again = run(make_encoder, tmp_path)
    assert second == []
    assert again == figures
