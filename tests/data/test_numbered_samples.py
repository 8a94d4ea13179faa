"""An item that cannot be read is named by its row, wherever it is read and collated."""

import copy

import pytest
from PIL import Image
from torch.utils.data import Dataset, Subset

from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    ShuffleSampler,
    SimilarityGroupSample,
    SimilarityPairSample,
    SimilarityTripletSample,
    TripletSimilarityDataLoader,
    read_groups,
)
from simtrain.data.collate import EncoderCollate
from simtrain.data.loaders import read_samples, with_collate
from simtrain.encoders.image_transform import ImageCollate, ImageTransform
from simtrain.errors import DataError

COLLATE = EncoderCollate({"image": ImageCollate(ImageTransform(8))})


@pytest.fixture
def table(tmp_path):
    """Ten images, of which the one in line 8 (row 6) is damaged."""
    lines = ["path,label,split"]
    for number in range(10):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (12, 12), (number, 0, 0)).save(path)
        if number == 6:
            path.write_bytes(path.read_bytes()[:40])
        lines.append(f"{number}.png,{number % 3},{'train' if number else 'test'}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "table.csv"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("prepared", [True, False])
def test_a_damaged_image_is_named_by_its_row_and_line(table, workers, prepared):
    data = read_groups(table, split="train")
    sampler = ShuffleSampler(data, seed=3)
    loader = GroupSimilarityDataLoader(data, batch_size=4, sampler=sampler, num_workers=workers)
    if prepared:
        with pytest.raises(DataError, match=r"row 5 of the data set \(.*table.csv, line 8\) is the file '.*6.png'"):
            list(with_collate(loader, COLLATE))
        return
    with pytest.raises(DataError, match=r"row 5 of the data set is the file '.*6.png'"):
        [COLLATE.of(batch) for batch in loader]


class Faulty(Dataset):
    """Fails at one of its rows, as a data set that opens files may."""

    def __len__(self):
        return 9

    def __getitem__(self, number):
        if number == 7:
            raise OSError("no such thing")
        return SimilarityGroupSample(f"item {number}", number % 2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_that_fails_is_named_by_row(workers):
    with pytest.raises(DataError, match="row 7 of the data set cannot be read: OSError: no such thing"):
        list(GroupSimilarityDataLoader(Faulty(), batch_size=3, num_workers=workers))
    with pytest.raises(DataError, match="row 2 of the data set cannot be read: OSError: no such thing"):
        list(GroupSimilarityDataLoader(Subset(Faulty(), [1, 2, 7]), batch_size=3, num_workers=workers))
    with pytest.raises(DataError, match="row 7 of the data set cannot be read"):
        read_samples(Faulty())


def test_any_object_of_pairs_and_triplets_leads_to_its_row(tmp_path):
    good, bad = Image.new("RGB", (9, 9)), tmp_path / "bad.png"
    pairs = [SimilarityPairSample(good, good) for _ in range(6)]
    triplets = [SimilarityTripletSample(good, good, [good] * (1 + number % 3)) for number in range(6)]
    for row, words in ((4, {"obj_a": bad}), (3, {"obj_b": bad})):
        samples = copy.copy(pairs)
        samples[row] = SimilarityPairSample(**{"obj_a": good, "obj_b": good, **words})
        with pytest.raises(DataError, match=f"row {row} of the data set"):
            list(with_collate(PairsSimilarityDataLoader(samples, batch_size=6), COLLATE))
    for row, sample in (
        (1, SimilarityTripletSample(bad, good, [good])),
        (2, SimilarityTripletSample(good, bad, [good])),
        (5, SimilarityTripletSample(good, good, [good, bad])),
    ):
        samples = copy.copy(triplets)
        samples[row] = sample
        with pytest.raises(DataError, match=f"row {row} of the data set"):
            list(with_collate(TripletSimilarityDataLoader(samples, batch_size=6), COLLATE))


class Whole(Faulty):
    """Reads batches at once."""

    def __getitems__(self, numbers):
        return [SimilarityGroupSample(f"whole {number}", number % 2) for number in numbers]


def test_a_data_set_is_read_as_it_wants_to_be_and_seen_as_it_is():
    loader = GroupSimilarityDataLoader(Whole(), batch_size=9)
    batch = next(iter(loader))
    assert batch.objects[7] == "whole 7"
    assert batch.numbers == list(range(9))
    assert isinstance(loader.dataset, Whole), "the loader's data set is the user's own"
    own = GroupSimilarityDataLoader(Whole(), batch_size=9, collate_fn=len)
    assert list(own) == [9], "a collate function of the user's own gets the samples alone"
    persistent = GroupSimilarityDataLoader(Whole(), batch_size=5, num_workers=1, persistent_workers=True)
    assert [len(one.objects) for _ in range(2) for one in persistent] == [5, 4, 5, 4]
