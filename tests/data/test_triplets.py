import json

import pytest

from simtrain.data import read_triplets
from simtrain.errors import DataError

SOURCES = ["rows", "csv", "tsv", "jsonl", "parquet", "pandas", "pyarrow", "datasets"]


def negatives(data):
    return [list(sample.negatives) for sample in data.samples]


@pytest.mark.parametrize("kind", SOURCES)
def test_one_column_of_negatives(make_source, kind):
    data = read_triplets(make_source(kind, [{"anchor": "a", "positive": "b", "negative": "c, d"}]))
    assert (data[0].anchor, data[0].positive, data[0].negatives) == ("a", "b", ["c, d"])


@pytest.mark.parametrize("kind", SOURCES)
def test_numbered_columns_come_in_the_order_of_their_numbers(make_source, kind):
    row = {"anchor": "a", "positive": "b", "negative_10": "n10", "negative_2": "n2", "negative_1": "n1", "id": "7"}
    assert negatives(read_triplets(make_source(kind, [row]))) == [["n1", "n2", "n10"]]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_column_of_lists(make_source, kind):
    lists = [["c"], ["d", "[e]", "f"]]
    as_text = kind in ("csv", "tsv")
    rows = [{"anchor": "a", "positive": "b", "negatives": json.dumps(n) if as_text else n} for n in lists]
    assert negatives(read_triplets(make_source(kind, rows))) == lists


@pytest.mark.parametrize("kind", SOURCES)
def test_rows_may_have_different_numbers_of_negatives_but_not_none(make_source, kind):
    rows = [
        {"anchor": "a", "positive": "b", "negative_1": "c", "negative_2": None},
        {"anchor": "a", "positive": "b", "negative_1": None, "negative_2": "d"},
        {"anchor": "a", "positive": "b", "negative_1": "e", "negative_2": "f"},
    ]
    assert negatives(read_triplets(make_source(kind, rows))) == [["c"], ["d"], ["e", "f"]]
    rows.insert(1, {"anchor": "a", "positive": "b", "negative_1": None, "negative_2": None})
    place = {"csv": "line 3", "tsv": "line 3", "jsonl": "line 2"}.get(kind, "row 1")
    with pytest.raises(DataError, match=f"{place}: there is no negative in 'negative_1', 'negative_2'; fill one"):
        read_triplets(make_source(kind, rows))


def test_columns_can_be_named_otherwise():
    rows = [{"query": "a", "yes": "b", "no": "c", "never": "d", "negative": "ignored"}]
    columns = {"anchor": "query", "positive": "yes", "negative": ["never", "no"]}
    assert negatives(read_triplets(rows, columns)) == [["d", "c"]]
    assert negatives(read_triplets(rows, {**columns, "negative": "no"})) == [["c"]]


def test_a_text_that_looks_like_a_list_stays_a_text_where_no_list_is_expected():
    assert negatives(read_triplets([{"anchor": "a", "positive": "b", "negative": '["c"]'}])) == [['["c"]']]
    assert negatives(read_triplets([{"anchor": "a", "positive": "b", "negatives": "[c"}])) == [["[c"]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"anchor": "a", "positive": "b"}, "row 0: there is no column 'negative'"),
        ({"anchor": "a", "positive": "b", "negatives": []}, "row 0: there is no negative in 'negatives'"),
        ({"anchor": "a", "positive": "b", "negatives": ["c", 3]}, "'negatives' should hold a text .*, got 3"),
        ({"anchor": "a", "positive": "b", "negatives": ["c", " "]}, "'negatives' should hold a text .*, got ' '"),
        ({"anchor": "a", "positive": "b", "negatives": ["c", None]}, "'negatives' should hold a text .*, got None"),
        ({"anchor": "a", "positive": "b", "negative": 3}, "'negative' should hold a text .*, got 3"),
        ({"anchor": "a", "positive": None, "negative": "c"}, "row 0: the column 'positive' is empty"),
        ({"anchor": "a", "positve": "b", "negative": "c"}, "no column 'positive'; did you mean 'positve'"),
    ],
)
def test_bad_rows_are_named(row, message):
    with pytest.raises(DataError, match=message):
        read_triplets([row])


def test_an_unknown_role_is_named_before_anything_is_read(tmp_path):
    with pytest.raises(DataError, match="unknown role 'negativ'; did you mean 'negative'"):
        read_triplets(tmp_path / "none.csv", {"negativ": "x"})
