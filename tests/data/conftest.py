"""One content in every kind of table."""

import csv
import gzip
import json

import pytest


def write_text_table(path, rows):
    opened = gzip.open if path.suffix == ".gz" else open
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if ".jsonl" in path.name:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.writer(file, delimiter="\t" if ".tsv" in path.name else ",")
            writer.writerow(columns)
            writer.writerows([["" if row.get(c) is None else row[c] for c in columns] for row in rows])
    return path


@pytest.fixture
def make_source(tmp_path):
    """Function ``(kind, rows) -> source``: the rows in a file, frame or table of that kind."""

    def make(kind, rows):
        if kind == "rows":
            return rows
        if kind == "parquet":
            pyarrow = pytest.importorskip("pyarrow")
            path = tmp_path / "table.parquet"
            pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
            return path
        if kind == "pandas":
            return pytest.importorskip("pandas").DataFrame(rows)
        if kind == "pyarrow":
            return pytest.importorskip("pyarrow").Table.from_pylist(rows)
        if kind == "datasets":
            return pytest.importorskip("datasets").Dataset.from_list(rows)
        return write_text_table(tmp_path / f"table.{kind}", rows)

    return make
