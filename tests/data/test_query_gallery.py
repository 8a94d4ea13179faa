import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain.data import QueryGallery, read_groups, read_query_gallery
from simtrain.errors import DataError

SOURCES = ["rows", "csv", "jsonl", "parquet", "pandas", "pyarrow", "datasets"]

# The format of open-metric-learning: training rows say nothing about queries.
OML = [
    {"label": "0", "path": "a.jpg", "split": "train", "is_query": None, "is_gallery": None, "sequence": None},
    {"label": "0", "path": "b.jpg", "split": "train", "is_query": None, "is_gallery": None, "sequence": None},
    {"label": "7", "path": "c.jpg", "split": "validation", "is_query": True, "is_gallery": True, "sequence": "s"},
    {"label": "7", "path": "d.jpg", "split": "validation", "is_query": False, "is_gallery": True, "sequence": "s"},
    {"label": "9", "path": "/e.jpg", "split": "validation", "is_query": True, "is_gallery": False, "sequence": None},
    {"label": "9", "path": "f.jpg", "split": "validation", "is_query": False, "is_gallery": True, "sequence": None},
]


def excluded(test):
    return test.exclude(torch.arange(len(test.queries)), torch.arange(len(test.gallery))).tolist()


@pytest.mark.parametrize("kind", SOURCES)
def test_the_columns_of_open_metric_learning(make_source, kind):
    source = make_source(kind, OML)
    root = source.parent if isinstance(source, Path) else Path()
    train = read_groups(source, split="train")
    assert [train[i].obj for i in range(len(train))] == [root / "a.jpg", root / "b.jpg"]
    test = read_query_gallery(source)
    assert list(test.queries) == [root / "c.jpg", Path("/e.jpg")]
    assert list(test.gallery) == [root / "c.jpg", root / "d.jpg", root / "f.jpg"]
    # A CSV file's labels that say integers are integers.
    names = {number: str(label) for number, label in test.label_names.items()}
    assert [names[label] for label in test.query_labels] == ["7", "9"]
    assert [names[label] for label in test.gallery_labels] == ["7", "7", "9"]
    # The first query finds neither itself nor its own sequence; rows without a sequence share none.
    assert excluded(test) == [[True, True, False], [False, False, False]]


@pytest.mark.parametrize(
    ("yes", "no"), [(True, False), (1, 0), ("True", "False"), ("true", "false"), ("1", "0"), (1.0, 0.0), ("1.0", "0.0")]
)
def test_truth_has_many_words(yes, no):
    rows = [
        {"item": "a", "group": 1, "is_query": yes, "is_gallery": no},
        {"item": "b", "group": 1, "is_query": no, "is_gallery": yes},
    ]
    test = read_query_gallery(rows, split=None)
    assert (test.queries, test.gallery) == (["a"], ["b"])


def test_our_names_come_first_and_given_ones_win():
    row = {"item": "i", "path": "p", "text": "t", "group": "g", "label": "l", "is_query": 1, "is_gallery": 1}
    assert read_query_gallery([row], None).queries == ["i"]
    assert read_query_gallery([row], None).label_names == {0: "g"}
    chosen = read_query_gallery([row], None, {"item": "text", "group": "label"})
    assert (chosen.queries, chosen.label_names) == (["t"], {0: "l"})
    assert read_groups([row], {"item": "path"})[0].obj == Path("p")


def test_paths_lie_in_the_root(make_source):
    rows = [{"item": "a.jpg", "group": 1, "is_query": 1, "is_gallery": 1}]
    assert read_query_gallery(rows, None, root="photos").gallery == [Path("photos/a.jpg")]
    assert read_groups(rows)[0].obj == "a.jpg", "texts are no paths unless somebody says so"
    addresses = [{"path": "https://a.b/c.jpg", "label": 1}]
    assert read_groups(addresses)[0].obj == "https://a.b/c.jpg"


def test_a_saved_mapping_is_used():
    rows = [{"item": "a", "group": "x", "is_query": 1, "is_gallery": 1}]
    assert read_query_gallery(rows, None, label_names={4: "x", 5: "y"}).query_labels == [4]
    with pytest.raises(DataError, match="the label 'x', which is not among the 1 of label_names"):
        read_query_gallery(rows, None, label_names={4: "y"})


BASE = {"item": "a", "group": 1, "split": "validation", "is_query": True, "is_gallery": True}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{**BASE, "is_query": False}], {}, "no row has a true 'is_query', so that there is no query item"),
        ([{**BASE, "is_gallery": "0"}], {}, "no row has a true 'is_gallery', so that there is no gallery item"),
        ([BASE, {**BASE, "is_query": "yes"}], {}, "row 1: the column 'is_query' should hold true or false, got 'yes'"),
        ([BASE, {**BASE, "is_query": None}], {}, "row 1: the column 'is_query' is empty"),
        ([{**BASE, "split": "train"}, {**BASE, "is_query": 2}], {}, "row 1: .* should hold true or false, got 2"),
        ([BASE], {"split": "valid"}, r"no row of the split 'valid'; .*'validation'"),
        ([{"item": "a", "group": 1}], {}, "has no column 'split' to take the split 'validation' from; .* split=None"),
        ([{"item": "a", "group": 1}], {"split": None}, "there is no column 'is_query'"),
        ([BASE], {"columns": {"is_querry": "q"}}, "unknown role 'is_querry'; did you mean 'is_query'"),
    ],
)
def test_bad_rows_are_named(rows, options, message):
    with pytest.raises(DataError, match=message):
        read_query_gallery(rows, **options)


def test_several_splits_are_never_mixed_unasked():
    with pytest.raises(
        DataError, match=r"holds several splits \('train', 'validation'\); pass split=..., or split='all'"
    ):
        read_groups(OML)
    assert len(read_groups(OML, split="all")) == 6
    assert len(read_groups(OML[:2])) == 2
    assert (
        len(read_groups([{**row, "part": row["split"], "split": ""} for row in OML], {"split": "part"}, split="train"))
        == 2
    )


@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.integers(0, 2), st.sampled_from([None, "s", "t", 1])),
        min_size=1,
        max_size=8,
    )
)
def test_exclusion_is_what_its_words_say(rows):
    rows.append((True, True, 0, "s"))
    table = [
        {"item": i, "group": group, "is_query": q, "is_gallery": g, "sequence": s}
        for i, (q, g, group, s) in enumerate(rows)
    ]
    test = read_query_gallery(table, split=None)
    expected = [
        [q == g or (rows[q][3] is not None and rows[q][3] == rows[g][3]) for g in test.gallery] for q in test.queries
    ]
    assert excluded(test) == expected
    assert [rows[q][2] for q in test.queries] == [test.label_names[label] for label in test.query_labels]
    # Block by block, as metrics ask.
    few = torch.tensor([len(test.queries) - 1])
    assert test.exclude(few, torch.arange(1)).tolist() == [[expected[-1][0]]]


def test_metrics_take_the_exclusion():
    from simtrain.metrics import retrieval_report

    test = read_query_gallery([{**row, "path": i} for i, row in enumerate(OML)], root="")
    vectors = torch.eye(3)
    of = {2: vectors[0], 3: vectors[0], 4: vectors[1], 5: vectors[2]}
    report = retrieval_report(
        torch.stack([of[i] for i in test.queries]),
        test.query_labels,
        torch.stack([of[i] for i in test.gallery]),
        test.gallery_labels,
        k=1,
        exclude=test.exclude,
    )
    # The first query's only match is of its own sequence; the second has one.
    assert (report["n_queries"], report["n_queries_without_match"]) == (2, 1)


def test_a_test_made_by_hand_is_checked():
    assert QueryGallery(["a"], ["b"], [0], [0]).exclude is None
    with pytest.raises(DataError, match="needs a gallery item at least, got none"):
        QueryGallery(["a"], [], [0], [])
    with pytest.raises(DataError, match="gallery_labels should have 2 values, one an item, got 1"):
        QueryGallery(["a"], ["b", "c"], [0], [0])
    with pytest.raises(DataError, match="give query_ids and gallery_ids, or neither"):
        QueryGallery(["a"], ["b"], [0], [0], query_ids=[1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        QueryGallery(["a"], ["b"], [0], [0]).queries = []


def test_items_of_a_hugging_face_data_set_stay_where_they_are(make_source):
    rows = [{"item": str(i), "group": 0, "is_query": i == 1, "is_gallery": True} for i in range(3)]
    test = read_query_gallery(make_source("datasets", rows), None)
    assert not isinstance(test.gallery, list)
    assert (list(test.gallery), test.gallery[1:], test.queries[-1]) == (["0", "1", "2"], ["1", "2"], "1")
