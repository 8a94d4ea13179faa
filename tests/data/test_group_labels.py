import numpy as np
import pytest
import torch

from simtrain.data import SimilarityGroupDataset, SimilarityGroupSample
from simtrain.data.group_labels import GroupLabels
from simtrain.errors import DataError


def test_groups_are_numbered_by_first_appearance():
    groups = GroupLabels(["b", ("a", 1), None, "b"])
    assert groups.numbers.tolist() == [0, 1, 2, 0]
    assert groups.names == ["b", ("a", 1), None]
    assert groups.counts.tolist() == [2, 1, 1]
    assert len(groups) == 3
    assert groups.find([None, "b"]).tolist() == [2, 0]


def test_one_label_in_any_form_is_one_label():
    groups = GroupLabels([SimilarityGroupSample("x", 5), SimilarityGroupSample("y", 2**40)])
    for same in ([5, 2**40], np.array([5, 2**40]), torch.tensor([5, 2**40]), [torch.tensor(5), np.int64(2**40)]):
        assert groups.find(same).tolist() == [0, 1]
    data = SimilarityGroupDataset([("x", 5), ("y", 2**40)])
    assert groups.find(data).tolist() == [0, 1]
    assert data.groups.tolist() == [5, 2**40]
    assert data.groups.dtype is torch.int64


def test_what_holds_no_labels_is_refused():
    with pytest.raises(DataError, match="at least one label is needed"):
        GroupLabels(())
    with pytest.raises(DataError, match=r"labels should have one dimension, got shape \(2, 2\)"):
        GroupLabels(np.zeros((2, 2)))
    for wrong, kind in ((3, "int"), ([[1], [2]], "list")):
        with pytest.raises(DataError, match=f"hashable labels, an array, or a data set .* got {kind}"):
            GroupLabels(wrong)
