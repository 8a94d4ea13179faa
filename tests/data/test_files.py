import json

import pytest

from simtrain.data import read_groups, read_pairs, read_records
from simtrain.errors import DataError


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_csv_and_jsonl_give_the_same_pairs(tmp_path):
    rows = [{"query": 'say "hi", ünï', "document": "greet()"}, {"query": "two\nlines", "document": "lines()"}]
    jsonl = read_pairs(write_jsonl(tmp_path / "a.jsonl", rows))
    (tmp_path / "a.csv").write_text(
        'query,document\n"say ""hi"", ünï",greet()\n"two\nlines",lines()\n', encoding="utf-8"
    )
    csv = read_pairs(tmp_path / "a.csv")
    assert jsonl.samples == csv.samples
    assert jsonl[1].obj_a == "two\nlines"


def test_pairs_that_share_a_query_get_one_subgroup_unless_given(tmp_path):
    rows = [{"query": "q", "document": "a"}, {"query": "q", "document": "b"}, {"query": "r", "document": "c"}]
    assert [sample.subgroup for sample in read_pairs(write_jsonl(tmp_path / "a.jsonl", rows)).samples] == [1, 1, 2]
    given = [{**row, "subgroup": number} for number, row in enumerate(rows, 7)]
    assert [sample.subgroup for sample in read_pairs(write_jsonl(tmp_path / "b.jsonl", given)).samples] == [7, 8, 9]


def test_columns_can_be_named_otherwise(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": "q", "answer": "a", "grade": 0.5}])
    sample = read_pairs(path, {"query": "question", "document": "answer", "score": "grade"})[0]
    assert (sample.obj_a, sample.obj_b, sample.score) == ("q", "a", 0.5)


def test_groups_keep_their_names(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"item": "x", "group": "shoes"}, {"item": "y", "group": "hats"}])
    data = read_groups(path)
    assert [data.label_names[data[index].group] for index in range(2)] == ["shoes", "hats"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"query": "q", "documnt": "d"}\n',
            r"line 1: there is no column 'document'; did you mean 'documnt'",
        ),
        ("a.csv", "query,doc\nq,d\n", "line 2: there is no column 'document'"),
        ("a.jsonl", '{"query": "q", "document": ""}\n', "line 1: the column 'document' is empty"),
        ("a.jsonl", '{"query": "q", "document": "d"}\n{"query": "q"}\n', "line 2: there is no column 'document'"),
        ("a.jsonl", '{"query": "q", "document": "d"}\n{"query": \n', "line 2: not valid JSON"),
        ("a.jsonl", "[1, 2]\n", "line 1: expected a JSON object"),
        ("a.jsonl", "\n\n", "has no rows"),
        ("a.csv", "", "has no rows"),
        ("a.csv", "query,document\na,b,c\n", "line 2: the row has more fields than the header"),
        ("a.csv", "query,document\na\n", "line 2: the row has fewer fields than the header, 1 and not 2"),
        ("a.csv", 'query,document\na,""\n', "line 2: the column 'document' is empty"),
        ("a.csv", "query,query,document\na,b,c\n", "line 1: the header names the column 'query' twice"),
        ("a.tsv", "query\tdocument\nq\td\te\n", "line 2: the row has more fields than the header"),
        ("a.txt", "q d\n", r"its name should end in .csv, .tsv, .jsonl, .ndjson \(also with .gz\) or .parquet"),
        ("a.parquet.gz", "q d\n", "cannot tell how to read"),
        ("a.csv.gz", "query,document\n", "not a valid gzip file"),
        ("a.jsonl", '{"query": "q", "document": "d", "score": "inf"}\n', "should hold a finite number, got 'inf'"),
        ("a.jsonl", '{"query": "q", "document": "d", "subgroup": 1.5}\n', "should hold a whole number, got 1.5"),
        ("a.jsonl", '{"query": 3, "document": "d"}\n', "line 1: the column 'query' should hold a text, got 3"),
        ("a.jsonl", '{"query": "  ", "document": "d"}\n', "line 1: the column 'query' is empty"),
        ("a.jsonl", '{"query": "q", "document": "d", "score": "high"}\n', "should hold a number, got 'high'"),
        (
            "a.jsonl",
            '{"query": "q", "document": "d", "score": 1}\n{"query": "q", "document": "e"}\n',
            "1 of 2 rows lack the column 'score'",
        ),
    ],
)
def test_bad_files_are_named_with_line_and_reason(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read_pairs(path)
    assert str(path) in str(error.value)


def test_blank_lines_are_passed_over_and_lines_counted_all_the_same(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n\nquery,document\n\na,b\n\nc,\n")
    with pytest.raises(DataError, match="line 7: the column 'document' is empty"):
        read_pairs(path)
    path.write_text("\n\nquery,document\n\na,b\n\n")
    assert len(read_pairs(path)) == 1


def test_a_missing_file_and_a_wrong_role_are_named(tmp_path):
    with pytest.raises(DataError, match="there is no data file"):
        read_records(tmp_path / "none.csv")
    with pytest.raises(DataError, match="unknown role 'docment'; did you mean 'document'"):
        read_pairs(tmp_path / "none.csv", {"docment": "x"})


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"query": "\xff\xfe", "document": "d"}\n')
    with pytest.raises(DataError, match="not UTF-8"):
        read_pairs(tmp_path / "a.jsonl")
