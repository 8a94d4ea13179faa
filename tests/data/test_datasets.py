import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain.data import SimilarityGroupDataset, SimilarityGroupSample, SimilarityPairDataset, SimilarityPairSample
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
