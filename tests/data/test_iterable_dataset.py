import copy
import pickle
from functools import partial

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DataLoader, IterableDataset

from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    SimilarityGroupSample,
    SimilarityIterableDataset,
    SimilarityPairSample,
    SimilarityTripletSample,
)
from simtrain.data.loaders import read_samples
from simtrain.errors import DataError


def make(n):
    for i in range(n):
        yield SimilarityGroupSample(f"x{i}", i)


def groups(loader):
    return sorted(int(group) for batch in loader for group in batch.targets["groups"])


@pytest.mark.parametrize("n", [1, 2, 7, 12])
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_each_sample_once_in_every_epoch(n, workers, persistent):
    data = SimilarityIterableDataset(partial(make, n))
    loader = GroupSimilarityDataLoader(data, batch_size=3, num_workers=workers, persistent_workers=persistent)
    for _ in range(3):
        assert groups(loader) == list(range(n))


def test_an_epoch_that_was_left_early_begins_anew():
    data = SimilarityIterableDataset(partial(make, 5))
    assert next(iter(data)).group == 0
    assert [sample.group for sample in data] == [0, 1, 2, 3, 4]
    first, second = iter(data), iter(data)
    assert [next(first).group, next(second).group, next(first).group] == [0, 0, 1]


def test_every_kind_of_sample_and_every_thing_that_can_be_iterated_again():
    pairs = [SimilarityPairSample("a", "b"), SimilarityPairSample("c", "d")]
    assert read_samples(SimilarityIterableDataset(pairs)) == pairs
    batch = next(iter(PairsSimilarityDataLoader(SimilarityIterableDataset(lambda: pairs), batch_size=2)))
    assert batch.objects == ["a", "c", "b", "d"]
    triplets = [SimilarityTripletSample("a", "b", ["c"])]
    assert list(SimilarityIterableDataset(triplets)) == triplets


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (make(2), r"a generator can be read only once, .* pass the function that makes it \(make, not make\(\)\)"),
        (iter([1]), "a list_iterator can be read only once"),
        (3, "make_iterator should be a function, got int"),
        (SimilarityIterableDataset(partial(make, 2)), "is iterable data already: give it to the loader"),
    ],
)
def test_what_cannot_be_read_again_is_refused(source, message):
    with pytest.raises(DataError, match=message):
        SimilarityIterableDataset(source)


def test_a_function_that_gives_one_generator_again_is_noticed():
    generator = make(3)
    data = SimilarityIterableDataset(lambda: generator)
    next(iter(data))
    with pytest.raises(DataError, match="gave the same iterator again; it should make a new one"):
        next(iter(data))


def test_no_sample_or_something_else_is_named():
    with pytest.raises(DataError, match="make_iterator gave no sample"):
        list(SimilarityIterableDataset(list))
    mixed = SimilarityIterableDataset(lambda: iter([*make(2), {"item": "a"}]))
    with pytest.raises(DataError, match="element 2 is a dict, expected SimilarityGroupSample or SimilarityPairSample"):
        list(mixed)


def test_without_sharing_every_worker_gives_all():
    data = SimilarityIterableDataset(partial(make, 3), shard=False)
    assert groups(GroupSimilarityDataLoader(data, batch_size=1, num_workers=2)) == [0, 0, 1, 1, 2, 2]


def test_a_stream_that_deals_with_workers_itself_loses_nothing():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"item": [f"x{i}" for i in range(9)], "group": list(range(9))})
    stream = rows.to_iterable_dataset(num_shards=3)
    data = SimilarityIterableDataset(partial(samples_of, stream), shard=False)
    for workers in (0, 2):
        assert groups(GroupSimilarityDataLoader(data, batch_size=2, num_workers=workers)) == list(range(9))
    assert isinstance(stream, IterableDataset)
    with pytest.raises(DataError, match="iterable data already"):
        SimilarityIterableDataset(stream)


def samples_of(stream):
    for row in stream:
        yield SimilarityGroupSample(row["item"], row["group"])


def test_copies_and_pickles_start_afresh():
    data = SimilarityIterableDataset(partial(make, 4), drop_uneven=True)
    next(iter(data))
    for twin in (copy.copy(data), copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert [sample.group for sample in twin] == [0, 1, 2, 3]
        assert twin.drop_uneven


# A spawned worker inherits neither memory nor the process group of its rank.
RUNS = [
    ("all", "all", 0, None),
    ("all, forked workers", "all", 2, "fork"),
    ("all, spawned workers", "all", 1, "spawn"),
    ("even", "even", 0, None),
    ("even, forked workers", "even", 2, "fork"),
]


def rank_reads(rank, world, folder):
    # Made before the process group is: the rank is read when samples are.
    data = SimilarityIterableDataset(partial(make, 11))
    even = SimilarityIterableDataset(partial(make, 11), drop_uneven=True)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=world)
    read = {}
    for name, source, workers, context in RUNS:
        chosen = {"all": data, "even": even}[source]
        loader = DataLoader(chosen, batch_size=None, num_workers=workers, multiprocessing_context=context)
        read[name] = [sample.group for sample in loader]
    dist.destroy_process_group()
    with open(f"{folder}/{rank}.pickle", "wb") as file:
        pickle.dump(read, file)


@pytest.mark.slow
def test_each_sample_once_over_ranks_and_workers(tmp_path):
    mp.spawn(rank_reads, (2, str(tmp_path)), nprocs=2)
    reads = [pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in range(2)]
    for name, source, workers, _ in RUNS:
        shares = 2 * max(1, workers)
        kept = 11 if source == "all" else 11 // shares * shares
        assert sorted(reads[0][name] + reads[1][name]) == list(range(kept)), name
        if source == "even":
            assert len(reads[0][name]) == len(reads[1][name]), name
