import pytest
import torch
from torch.utils.data import IterableDataset

from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    PKSampler,
    SampleBatch,
    SimilarityGroupSample,
    SimilarityPairDataset,
    SimilarityPairSample,
    collate_samples,
)
from simtrain.data.collate import EncoderCollate
from simtrain.data.loaders import read_samples, with_collate
from simtrain.errors import DataError

PAIRS = [SimilarityPairSample(f"q{i}", f"d{i}", score=i / 10, subgroup=i) for i in range(10)]
GROUPS = [SimilarityGroupSample(f"x{i}", i % 3) for i in range(10)]


def lengths(items):
    return torch.tensor([len(item) for item in items])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(PAIRS)


def test_pair_batches_hold_queries_then_documents():
    batch = next(iter(PairsSimilarityDataLoader(PAIRS, batch_size=4)))
    assert isinstance(batch, SampleBatch)
    assert batch.objects == ["q0", "q1", "q2", "q3", "d0", "d1", "d2", "d3"]
    assert batch.targets["pairs"].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert batch.targets["labels"].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert batch.targets["subgroups"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_group_batches_hold_items_and_groups():
    batch = next(iter(GroupSimilarityDataLoader(GROUPS, batch_size=4)))
    assert batch.objects == ["x0", "x1", "x2", "x3"]
    assert batch.targets["groups"].tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_no_item_is_lost_or_repeated(workers):
    loader = PairsSimilarityDataLoader(PAIRS, batch_size=3, shuffle=True, num_workers=workers)
    for _ in range(2):
        assert sorted(item for batch in loader for item in batch.objects if item[0] == "q") == [
            f"q{i}" for i in range(10)
        ]


def test_a_stream_of_samples_can_be_loaded():
    batches = list(PairsSimilarityDataLoader(Stream(), batch_size=4))
    assert [len(batch.targets["labels"]) for batch in batches] == [4, 4, 2]
    assert read_samples(Stream()) == PAIRS


@pytest.mark.parametrize("workers", [0, 2])
def test_another_collate_function_leaves_the_given_loader_as_it_was(workers):
    loader = PairsSimilarityDataLoader(PAIRS, batch_size=5, num_workers=workers)
    twin = with_collate(loader, EncoderCollate({"enc": lengths}))
    features, targets = next(iter(twin))
    assert features["enc"].tolist() == [2] * 10
    assert targets["pairs"].shape == (5, 2)
    assert isinstance(next(iter(loader)), SampleBatch)


def test_wrong_data_is_refused_when_the_loader_is_made():
    with pytest.raises(DataError, match="sample 0 is a SimilarityGroupSample, expected SimilarityPairSample"):
        PairsSimilarityDataLoader(GROUPS)
    with pytest.raises(DataError, match="first element is a SimilarityPairSample"):
        GroupSimilarityDataLoader(SimilarityPairDataset(PAIRS))
    with pytest.raises(DataError, match="at least one"):
        PairsSimilarityDataLoader([])
    with pytest.raises(DataError, match="a data set or a list of samples, got int"):
        PairsSimilarityDataLoader(3)


def test_a_batch_of_mixed_samples_is_refused():
    with pytest.raises(DataError, match="SimilarityGroupSample, SimilarityPairSample"):
        collate_samples([PAIRS[0], GROUPS[0]])
    with pytest.raises(DataError, match="got no sample"):
        collate_samples([])


def test_a_sampler_in_the_place_of_a_batch_sampler_is_named():
    samples = [SimilarityGroupSample(str(i), i % 2) for i in range(8)]
    sampler = PKSampler([i % 2 for i in range(8)], batch_size=4, per_group=2)
    with pytest.raises(DataError, match=r"a PKSampler gives single samples .* pass it as sampler="):
        GroupSimilarityDataLoader(samples, batch_sampler=sampler)
