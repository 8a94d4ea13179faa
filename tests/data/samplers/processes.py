"""Pretending to be one of several processes: rank and world size are read when a sampler is iterated."""

import itertools
from contextlib import contextmanager

import pytest
import torch.distributed as dist


@contextmanager
def process(rank, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "is_initialized", lambda: size > 1)
        patch.setattr(dist, "get_rank", lambda: rank)
        patch.setattr(dist, "get_world_size", lambda: size)
        # What one of them would send, each has made for itself here.
        patch.setattr(dist, "broadcast_object_list", lambda values, src: None)
        yield


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def batches_of(order, batch_size):
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def joined_batches(make, size, batch_size):
    """Batches of ``size`` processes joined in the order of their ranks."""
    shares = []
    for rank in range(size):
        with process(rank, size):
            sampler = make(batch_size)
            share = list(sampler)
            assert len(sampler) == len(share)
        shares.append(batches_of(share, batch_size))
    assert len({len(share) for share in shares}) == 1, "processes have different numbers of batches"
    return [flat(parts) for parts in zip(*shares, strict=True)]
