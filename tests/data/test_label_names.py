import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simtrain.data import SimilarityGroupDataset, load_label_names, read_groups, save_label_names
from simtrain.data.label_names import number_labels, plain_label
from simtrain.errors import DataError

SCALARS = st.one_of(st.text(max_size=5), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
LABELS = st.recursive(SCALARS, lambda parts: st.lists(parts, max_size=3).map(tuple), max_leaves=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=st.lists(LABELS, min_size=1, max_size=8))
def test_a_saved_mapping_gives_every_label_the_same_number_again(tmp_path, labels):
    first = SimilarityGroupDataset([(0, label) for label in labels])
    first.save_label_names(tmp_path / "labels.json")
    names = load_label_names(tmp_path / "labels.json")
    assert names == first.label_names
    assert [type(name) for name in names.values()] == [type(name) for name in first.label_names.values()]
    again = SimilarityGroupDataset([(0, label) for label in reversed(labels)], label_names=names)
    assert again.groups.tolist() == first.groups.tolist()[::-1]
    assert again.label_names == names


def test_labels_of_mixed_kinds_stay_apart():
    labels = ["1", 1, ("1", 1), 1.5, "a", np.int64(1), torch.tensor(1), np.str_("a")]
    data = SimilarityGroupDataset([(0, label) for label in labels])
    assert data.groups.tolist() == [0, 1, 2, 3, 4, 1, 1, 4]
    assert [type(label) for label in data.label_names.values()] == [str, int, tuple, float, str]


def test_integers_beyond_64_bits_are_numbered():
    data = SimilarityGroupDataset([(0, 2**64), (0, 2**64 + 1), (0, 2**64)])
    assert data.groups.tolist() == [0, 1, 0]
    assert number_labels([2**63 - 1, -(2**63)])[0] == [2**63 - 1, -(2**63)]


@pytest.mark.parametrize(
    ("label", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array(3), 3),
        (np.array([3]), 3),
        (torch.tensor([3]), 3),
        (torch.tensor(16_777_217), 16_777_217),
        (np.uint64(2**64 - 1), 2**64 - 1),
    ],
)
def test_scalars_lose_their_wrapping(label, plain):
    assert plain_label(label) == plain
    assert type(plain_label(label)) is type(plain)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (float("nan"), "element 1: a label is NaN, which usually means that it is missing"),
        (torch.tensor(float("nan")), "element 1: a label is NaN"),
        (["a"], r"element 1: a label should be hashable \(a text, a number, a tuple\), got \['a'\]"),
        (np.array([1, 2]), r"element 1: a label should be one value, got ndarray of shape \(2,\)"),
        (torch.tensor([1, 2]), r"element 1: a label should be one value, got Tensor of shape \(2,\)"),
        (torch.zeros(0), r"element 1: a label should be one value, got Tensor of shape \(0,\)"),
    ],
)
def test_unusable_labels_are_named(label, message):
    with pytest.raises(DataError, match=message):
        SimilarityGroupDataset([("a", 1), ("b", label)])


def test_an_unknown_label_is_named_with_the_nearest():
    names = {0: "shoes", 1: "hats"}
    with pytest.raises(DataError, match=r"element 1 has the label 'shos', .* 2 of label_names; did you mean 'shoes'\?"):
        SimilarityGroupDataset([(0, "hats"), (0, "shos")], label_names=names)
    with pytest.raises(DataError, match=r"element 0 has the label 7, .*; none of them is like it"):
        SimilarityGroupDataset([(0, 7)], label_names=names)
    with pytest.raises(DataError, match=r"element 0 has the label '1234', .* did you mean 123\?"):
        SimilarityGroupDataset([(0, "1234")], label_names={0: 123})


def test_a_label_of_a_typed_file_and_its_text_are_one_label():
    for names, label in (({3: 7}, "7"), ({3: "7"}, 7)):
        data = SimilarityGroupDataset([("item", label)], label_names=names)
        assert (data[0].group, data.label_names) == (3, names)
    both = {0: 7, 1: "7"}
    assert [SimilarityGroupDataset([("item", label)], label_names=both)[0].group for label in (7, "7")] == [0, 1]
    # True is no number, whatever Python says.
    with pytest.raises(DataError, match="element 0 has the label 'True'"):
        SimilarityGroupDataset([("item", "True")], label_names={0: 1})


@pytest.mark.parametrize(
    ("train", "test"), [("csv", "parquet"), ("parquet", "csv"), ("tsv", "pandas"), ("csv", "rows")]
)
def test_training_and_test_data_of_two_kinds_of_files_agree_on_their_labels(make_source, train, test):
    seen = read_groups(make_source(train, [{"item": f"a{i}", "group": label} for i, label in enumerate((12, 7, 12))]))
    other = read_groups(make_source(test, [{"item": f"b{i}", "group": label} for i, label in enumerate((7, -3, 12))]))
    assert (seen.groups.tolist(), other.groups.tolist()) == ([12, 7, 12], [7, -3, 12])
    assert other.numbered_like(seen.label_names).groups.tolist() == [7, -3, 12]


def test_labels_of_a_text_file_that_are_not_all_integers_stay_texts(make_source):
    rows = [{"item": "a", "group": "007", "split": "x"}, {"item": "b", "group": "7", "split": "y"}]
    source = make_source("csv", rows)
    # The whole column decides, so that splits of one file agree.
    assert read_groups(source, split="y").label_names == {0: "7"}
    assert read_groups(source, split="all").label_names == {0: "007", 1: "7"}


def test_further_labels_are_numbered_on():
    train = SimilarityGroupDataset([("a", "shoes"), ("b", "hats")])
    valid = SimilarityGroupDataset([("c", "hats"), ("d", "bags"), ("e", "shoes")])
    again = valid.numbered_like(train.label_names)
    assert (again.groups.tolist(), again[1].group) == ([1, 2, 0], 2)
    assert valid.groups.tolist() == [0, 1, 2], "the given data set stays as it is"
    assert train.label_names == {0: "shoes", 1: "hats"}


@pytest.mark.usefixtures("without_type_checks")
def test_a_mapping_that_is_none_is_refused():
    with pytest.raises(DataError, match="label_names gives 'a' two numbers, 0 and 1"):
        SimilarityGroupDataset([(0, "a")], label_names={0: "a", 1: "a"})
    with pytest.raises(DataError, match="label_names maps numbers to labels, got the key 'a'"):
        SimilarityGroupDataset([(0, "a")], label_names={"a": 0})


@pytest.mark.parametrize(
    "label", [None, Decimal(1), frozenset([1]), b"a", Path("a"), (1, None), float("inf"), (1, float("-inf"))]
)
def test_a_label_that_json_would_change_is_not_saved(tmp_path, label):
    data = SimilarityGroupDataset([(0, label)])
    with pytest.raises(DataError, match="a label that is saved should be a text, a number, True, False, or a tuple"):
        data.save_label_names(tmp_path / "labels.json")
    assert list(tmp_path.iterdir()) == []


def test_saving_replaces_the_file_and_a_failure_leaves_it(tmp_path):
    path = tmp_path / "labels.json"
    save_label_names(path, {0: "a"})
    with pytest.raises(DataError):
        save_label_names(path, {0: None})
    assert load_label_names(path) == {0: "a"}
    save_label_names(path, {3: np.str_("b")})
    assert load_label_names(path) == {3: "b"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a file of label names"),
        ("[]", "is not a file of label names"),
        ('{"labels": []}', "is not a file of label names"),
        ('{"simtrain_label_names": 2, "labels": []}', "written by a later version"),
        ('{"simtrain_label_names": 1, "labels": [[0]]}', "is not a file of label names"),
        ('{"simtrain_label_names": 1, "labels": [["0", "a"]]}', "a number is '0'"),
        ('{"simtrain_label_names": 1, "labels": [[0, null]]}', "a label is None"),
        ('{"simtrain_label_names": 1, "labels": [[0, "a"], [0, "b"]]}', "a number appears twice"),
        ('{"simtrain_label_names": 1, "labels": [[0, "a"], [1, "a"]]}', "gives 'a' two numbers"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(DataError, match=message):
        load_label_names(tmp_path / "labels.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file of label names .*none.json'; save_label_names writes one"):
        load_label_names(tmp_path / "none.json")


def test_the_file_is_plain_json(tmp_path):
    save_label_names(tmp_path / "a.json", {0: "schön", 1: (1, "b")})
    content = json.loads((tmp_path / "a.json").read_text())
    assert content == {"simtrain_label_names": 1, "labels": [[0, "schön"], [1, [1, "b"]]]}
