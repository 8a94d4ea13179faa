"""Equal labels are found by comparing all, or by sorting: the same pairs, in the same order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain.losses import equal_pairs

labels = st.lists(st.sampled_from([-(2**60), -1, 0, 1, 2, 2**24, 2**24 + 1, 2**40]), min_size=1, max_size=12)


@pytest.mark.parametrize("few", [0, 1 << 15])
@given(own=labels, others=labels)
def test_pairs_are_those_of_two_loops(few, own, others):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(equal_pairs, "_FEW", few)
        within = equal_pairs.same_label_pairs(torch.tensor(own))
        across = equal_pairs.LabelIndex(torch.tensor(own), torch.tensor(others)).pairs(0, len(own))
    n = range(len(own))
    assert list(zip(*(one.tolist() for one in within), strict=True)) == [
        (i, j) for i in n for j in n if i != j and own[i] == own[j]
    ]
    assert list(zip(*(one.tolist() for one in across), strict=True)) == [
        (i, j) for i in n for j in range(len(others)) if own[i] == others[j]
    ]
