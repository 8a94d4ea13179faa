import dataclasses

import pytest

from simtrain.data import SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample


def test_samples_have_the_documented_fields_and_defaults():
    pair = SimilarityPairSample("a", "b")
    assert (pair.obj_a, pair.obj_b, pair.score, pair.subgroup) == ("a", "b", 1.0, 0)
    group = SimilarityGroupSample(obj="a", group=3)
    assert (group.obj, group.group) == ("a", 3)
    triplet = SimilarityTripletSample("a", "b", ["c"])
    assert (triplet.anchor, triplet.positive, triplet.negatives) == ("a", "b", ["c"])


def test_samples_cannot_be_changed_by_training():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SimilarityPairSample("a", "b").score = 0.5
