"""Loaders of sample numbers draw what torch's own loaders draw."""

import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler

from simtrain.cache.indexed_loader import IndexedDataLoader, SampleNumbers
from simtrain.data import (
    PKSampler,
    ShuffleSampler,
)
from tests.runner.loop_twins import N


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [4, 7])
def test_batches_of_numbers_are_those_of_torchs_loader(drop_last, batch_size):
    def samplers():
        pk = PKSampler(torch.arange(N) % 8, batch_size=batch_size, per_group=1, seed=1)
        return [ShuffleSampler(range(N), seed=4), pk]

    for ours, theirs in zip(samplers(), samplers(), strict=True):
        for _ in range(2):
            expected = list(BatchSampler(theirs, batch_size, drop_last))
            assert [batch.tolist() for batch in ours.batches(batch_size, drop_last)] == expected
            assert ours.state_dict() == theirs.state_dict()
    ours, theirs = samplers()[0], samplers()[0]
    next(ours.batches(batch_size))
    next(iter(BatchSampler(theirs, batch_size, drop_last)))
    assert ours.state_dict() == theirs.state_dict()


def test_an_indexed_loader_draws_from_the_generators_as_torchs_does():
    def numbers(kind):
        torch.manual_seed(8)
        loader = kind(SampleNumbers(10), collate_fn=list, batch_size=3, sampler=RandomSampler(range(10)))
        return [[int(number) for number in batch] for _ in range(2) for batch in loader], torch.rand(1)

    assert numbers(IndexedDataLoader) == numbers(torch.utils.data.DataLoader)
