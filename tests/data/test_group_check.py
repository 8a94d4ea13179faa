import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset

from simtrain.data import SimilarityGroupDataset, check_groups
from simtrain.errors import DataError


@given(st.lists(st.integers(0, 5), max_size=8))
def test_labels_pass_exactly_if_some_are_equal_and_some_differ(labels):
    good = any(a == b for i, a in enumerate(labels) for b in labels[:i]) and len(set(labels)) > 1
    for source in (labels, [str(label) for label in labels], torch.tensor(labels), np.array(labels)):
        if good:
            check_groups(source)
        else:
            with pytest.raises(DataError):
                check_groups(source)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "items with group labels, got none"),
        (["a", "a", "a"], r"all 3 group labels are equal \('a'\), so that there is nothing to tell apart"),
        ([4], r"all 1 group labels are equal \(4\)"),
        (["a", 1, "b"], r"all 3 group labels are different \('a', 1, ...\), .* Is the column of labels an id\?"),
    ],
)
def test_messages_say_which_and_why(labels, message):
    with pytest.raises(DataError, match=message):
        check_groups(labels)


def test_data_sets_hold_such_labels_and_are_refused_only_here():
    data = SimilarityGroupDataset([("a", 1), ("b", 2), ("c", 2)])
    check_groups(data)
    samples = list(data)
    check_groups(samples)
    with pytest.raises(DataError, match="all 2 group labels are different"):
        check_groups(samples[:2])
    with pytest.raises(DataError, match="all 2 group labels are different"):
        check_groups(Subset(data, [0, 1]))
    with pytest.raises(DataError, match="all 2 group labels are equal"):
        check_groups(Subset(data, [1, 2]))
