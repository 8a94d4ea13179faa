"""Loaders of one data set, each with another kind of sampler."""

import torch
from torch.utils.data import BatchSampler, DistributedSampler, IterableDataset

from simtrain.data import (
    BalancedSampler,
    GroupSimilarityDataLoader,
    PKSampler,
    SimilarityGroupSample,
    collate_samples,
)

SAMPLES = [SimilarityGroupSample(number, number % 7) for number in range(40)]
LABELS = [sample.group for sample in SAMPLES]


def shuffled(**options):
    torch.manual_seed(4)
    return GroupSimilarityDataLoader(SAMPLES, batch_size=6, shuffle=True, **options)


def whole_batches(**options):
    torch.manual_seed(4)
    return GroupSimilarityDataLoader(SAMPLES, batch_size=6, shuffle=True, drop_last=True, **options)


def in_order(**options):
    return GroupSimilarityDataLoader(SAMPLES, batch_size=6, **options)


def by_groups(**options):
    sampler = PKSampler(LABELS, batch_size=6, per_group=2, seed=3)
    return GroupSimilarityDataLoader(SAMPLES, batch_size=6, sampler=sampler, **options)


def in_a_batch_sampler(**options):
    batches = BatchSampler(BalancedSampler(LABELS, seed=3), batch_size=6, drop_last=False)
    return GroupSimilarityDataLoader(SAMPLES, batch_sampler=batches, **options)


def one_at_a_time(**options):
    torch.manual_seed(4)
    return GroupSimilarityDataLoader(SAMPLES, batch_size=None, shuffle=True, collate_fn=alone, **options)


def alone(sample):
    return collate_samples([sample])


def dealt_by_torch(**options):
    sampler = DistributedSampler(SAMPLES, num_replicas=2, rank=1, seed=3)
    return GroupSimilarityDataLoader(SAMPLES, batch_size=6, sampler=sampler, **options)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(SAMPLES)


def stream(**options):
    return GroupSimilarityDataLoader(Stream(), batch_size=6, **options)


def items(batch):
    return list(batch.objects)
