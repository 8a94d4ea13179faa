import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset

from simtrain.data import (
    SimilarityGroupDataset,
    SimilarityGroupSample,
    SimilarityPairDataset,
    SimilarityPairSample,
    SimilarityTripletDataset,
    SimilarityTripletSample,
)
from simtrain.errors import DataError


def test_an_empty_data_set_is_refused():
    with pytest.raises(DataError, match="at least one SimilarityPairSample, got none"):
        SimilarityPairDataset([])
    with pytest.raises(DataError, match="at least one"):
        SimilarityGroupDataset([])


@pytest.mark.usefixtures("without_type_checks")
def test_a_wrong_sample_is_named_with_its_place():
    with pytest.raises(DataError, match="sample 1 is a str, expected SimilarityPairSample"):
        SimilarityPairDataset([SimilarityPairSample("a", "b"), "c"])
    with pytest.raises(DataError, match=r"element 1 should be a SimilarityGroupSample or \(item, label\)"):
        SimilarityGroupDataset([("a", 1), "bcd"])


def test_group_data_takes_tuples_samples_and_tensor_labels():
    tuples = SimilarityGroupDataset([("a", 5), ("b", 6)])
    samples = SimilarityGroupDataset([SimilarityGroupSample("a", 5), SimilarityGroupSample("b", 6)])
    tensors = SimilarityGroupDataset([("a", torch.tensor(5)), ("b", torch.tensor(6))])
    expected = [SimilarityGroupSample("a", 5), SimilarityGroupSample("b", 6)]
    for data in (tuples, samples, tensors):
        assert [data[index] for index in range(len(data))] == expected


@given(st.lists(st.one_of(st.text(max_size=2), st.integers(), st.booleans()), min_size=1))
def test_equal_labels_get_one_group_and_different_ones_never_share(labels):
    data = SimilarityGroupDataset([(position, label) for position, label in enumerate(labels)])
    groups = [data[index].group for index in range(len(data))]
    for i, first in enumerate(labels):
        for j, second in enumerate(labels):
            assert (groups[i] == groups[j]) == (first == second)
    assert [data.label_names[group] for group in groups] == labels


def test_integers_stay_as_they_are_also_large_ones():
    data = SimilarityGroupDataset([("a", 16_777_216), ("b", 16_777_217)])
    assert data[0].group != data[1].group
    assert data[1].group == 16_777_217


class Torchvision:
    """Counts how often items are read, and has targets as torchvision's data sets do."""

    def __init__(self, labels, targets, target_transform=None):
        self.labels = labels
        self.targets = targets
        self.target_transform = target_transform
        self.reads = 0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.reads += 1
        return f"x{index}", self.labels[index]


@pytest.mark.parametrize("kind", [list, torch.tensor, np.array])
def test_targets_spare_the_items(kind):
    source = Torchvision([5, 6, 5], kind([5, 6, 5]))
    data = SimilarityGroupDataset(source)
    assert (data.groups.tolist(), source.reads) == ([5, 6, 5], 1)
    assert data[2] == SimilarityGroupSample("x2", 5)


@pytest.mark.parametrize(
    ("targets", "transform"),
    [
        ([7, 8, 7], None),  # of another meaning
        ([5, 6], None),  # of another length
        ([[5], [6], [5]], None),
        (torch.ones(3, 2), None),
        (7, None),
        ([5, 6, 5], str),
    ],
)
def test_targets_that_are_no_labels_are_left_alone(targets, transform):
    source = Torchvision([5, 6, 5], targets, transform)
    assert SimilarityGroupDataset(source).groups.tolist() == [5, 6, 5]
    assert source.reads >= 3


def test_a_subset_uses_the_targets_too():
    source = Torchvision(["a", "b", "a"], ["a", "b", "a"])
    data = SimilarityGroupDataset(Subset(source, [1, 2]))
    assert (data.label_names, source.reads) == ({0: "b", 1: "a"}, 1)
    assert data[1] == SimilarityGroupSample("x2", 1)


def test_a_source_whose_labels_change_is_noticed():
    source = Torchvision(["a", "b"], None)
    data = SimilarityGroupDataset(source)
    source.labels = ["a", "c"]
    assert data[0].group == 0
    with pytest.raises(DataError, match="element 1 had the label 'b' when the data set was made and now has 'c'"):
        data[1]


def test_generators_are_read_to_their_end():
    assert len(SimilarityPairDataset(SimilarityPairSample(q, "d") for q in "abc")) == 3
    assert SimilarityGroupDataset((item, item) for item in "aba").groups.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="at least one"):
        SimilarityGroupDataset(iter([]))


def test_triplets_are_held_and_checked():
    samples = [SimilarityTripletSample("a", "b", ["c"]), SimilarityTripletSample("d", "e", ("f", "g"))]
    data = SimilarityTripletDataset(iter(samples))
    assert (len(data), data[1]) == (2, samples[1])


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        ("chair", "sample 1: negatives should be a list of items, got str 'chair'"),
        ([], "sample 1 has no negatives; a triplet needs one or more"),
        (None, "sample 1: negatives should be a list of items, got NoneType None"),
    ],
)
def test_a_triplet_without_a_list_of_negatives_is_named(negatives, message):
    good = SimilarityTripletSample("a", "b", ["c"])
    with pytest.raises(DataError, match=message):
        SimilarityTripletDataset([good, SimilarityTripletSample("a", "b", negatives)])
    with pytest.raises(DataError, match="sample 0 is a SimilarityPairSample, expected SimilarityTripletSample"):
        SimilarityTripletDataset([SimilarityPairSample("a", "b")])
