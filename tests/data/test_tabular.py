import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from simtrain.data import GroupSimilarityDataLoader, read_groups, read_pairs, read_records
from simtrain.data.tabular import open_table
from simtrain.errors import DataError, MissingExtraError

SOURCES = ["rows", "csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "parquet", "pandas", "pyarrow", "datasets"]
IN_MEMORY = ["rows", "pandas", "pyarrow", "datasets"]

PAIRS = [
    {"query": 'say "hi",\tünï', "document": "greet()", "score": 1.0, "subgroup": 2**60 + 1},
    {"query": "two\nlines", "document": "lines()", "score": 0.25, "subgroup": 2**60},
    {"query": "third", "document": "3", "score": 0.5, "subgroup": 7},
]


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_pairs(make_source, kind):
    samples = read_pairs(make_source(kind, PAIRS)).samples
    assert [(s.obj_a, s.obj_b, s.score) for s in samples] == [(r["query"], r["document"], r["score"]) for r in PAIRS]
    # As floating-point numbers the first two would be one.
    assert [s.subgroup for s in samples] == [2**60 + 1, 2**60, 7]


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_groups_and_records(make_source, kind):
    rows = [{"item": "x", "group": "shoes"}, {"item": "y", "group": "hats"}, {"item": "z", "group": "shoes"}]
    source = make_source(kind, rows)
    data = read_groups(source)
    assert [(data[i].obj, data[i].group) for i in range(3)] == [("x", 0), ("y", 1), ("z", 0)]
    assert data.label_names == {0: "shoes", 1: "hats"}
    assert read_records(source, ["item"]) == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "item": st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6).map(
                    lambda t: t + "."
                ),
                "group": st.text("abü'\" ,\n", max_size=4).map(lambda t: t + "x"),
            }
        ),
        min_size=1,
        max_size=6,
    )
)
@pytest.mark.parametrize("kind", SOURCES)
def test_any_text_survives_the_round_trip(make_source, kind, rows):
    assert read_records(make_source(kind, rows)) == rows


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_sources_in_memory_keep_integer_labels_exactly(make_source, kind):
    rows = [{"item": "a", "group": 16_777_216}, {"item": "b", "group": 16_777_217}]
    data = read_groups(make_source(kind, rows))
    assert [data[0].group, data[1].group] == [16_777_216, 16_777_217]
    assert type(data[0].group) is int


@pytest.mark.parametrize("kind", SOURCES)
def test_an_empty_cell_is_named_with_its_row(make_source, kind):
    rows = [{"query": "q", "document": "d"}, {"query": "r", "document": None}, {"query": None, "document": "d"}]
    place = {"csv": "line 3", "csv.gz": "line 3", "tsv": "line 3", "jsonl": "line 2", "jsonl.gz": "line 2"}
    with pytest.raises(DataError, match=rf"{place.get(kind, 'row 1')}: the column 'document' is empty; fill it"):
        read_pairs(make_source(kind, rows))


@pytest.mark.parametrize("kind", SOURCES)
def test_a_missing_column_is_named_with_the_nearest(make_source, kind):
    with pytest.raises(DataError, match="there is no column 'document'; did you mean 'documnt'"):
        read_pairs(make_source(kind, [{"query": "q", "documnt": "d"}]))


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_a_number_is_no_text(make_source, kind):
    rows = [{"query": 1, "document": "d"}, {"query": 2, "document": "d"}]
    with pytest.raises(DataError, match="row 0: the column 'query' should hold a text, got 1"):
        read_pairs(make_source(kind, rows))


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_optional_columns_are_given_for_all_rows_or_none(make_source, kind):
    rows = [{"query": "q", "document": "d", "score": 1.0}, {"query": "q", "document": "e", "score": None}]
    with pytest.raises(DataError, match="1 of 2 rows lack the column 'score'; give all or none"):
        read_pairs(make_source(kind, rows))
    none = [{**row, "score": None} for row in rows]
    assert [sample.score for sample in read_pairs(make_source(kind, none)).samples] == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["pandas", "pyarrow", "parquet"])
def test_a_table_without_rows_is_refused(make_source, kind):
    pyarrow, pandas = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    if kind == "parquet":
        path = make_source("parquet", [{"item": "a"}])
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"item": pyarrow.array([], "string")}), path)
        source = path
    else:
        source = {"pandas": pandas.DataFrame({"item": []}), "pyarrow": pyarrow.table({"item": []})}[kind]
    with pytest.raises(DataError, match="has no rows; it should hold at least one"):
        read_records(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "the list of rows has no rows"),
        ([{"item": "a"}, "b"], "row 1 is a str: 'b'"),
        (7, "data should be a path, a pandas frame, .*, got int"),
        ({"item": ["a"], "group": ["b"]}, r"a mapping of columns \('item', 'group'\) is no table"),
        ([{"item": "a", "group": "g"}, {"item": "b"}], "row 1: there is no column 'group'"),
        ([{"item": "a", "group": ["g", "h"]}], "row 0: the column 'group': a label should be hashable"),
        ([{"item": "a", "group": float("nan")}], "row 0: the column 'group' is empty"),
        ([{"item": "a", 3: "g"}], "row 0: there is no column 'group'; accepted: '3', 'item'"),
    ],
)
def test_what_is_no_table_is_refused(source, message):
    with pytest.raises(DataError, match=message):
        read_groups(source)


def test_a_generator_of_mappings_is_read_to_its_end():
    assert len(read_groups({"item": i, "group": i % 2} for i in range(4))) == 4


def test_a_parquet_file_that_is_none_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    path.write_text("nothing")
    with pytest.raises(DataError, match=r"a.parquet is not a valid Parquet file"):
        read_records(path)


def test_a_damaged_page_of_a_parquet_file_is_found(tmp_path, make_source):
    path = make_source("parquet", [{"item": f"text {i} " * 20, "group": str(i % 3)} for i in range(50)])
    content = bytearray(path.read_bytes())
    content[20:200] = b"\xff" * 180
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a valid Parquet file"):
        read_groups(path)


def test_two_columns_of_one_name_are_refused():
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pandas.DataFrame([["a", "b", 1]], columns=["item", "item", "group"])
    table = pyarrow.Table.from_arrays([pyarrow.array([1])] * 3, names=["item", "item", "group"])
    for source in (frame, table):
        with pytest.raises(DataError, match="has two columns called 'item'; rename one"):
            read_groups(source)


def test_a_frame_with_numbers_for_names_and_its_own_index():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([["a", "g"], ["b", None]], index=["x", "y"])
    with pytest.raises(DataError, match="the pandas frame, row 1: the column '1' is empty"):
        read_groups(frame, {"item": "0", "group": "1"})
    data = read_groups(frame.iloc[:1], {"item": "0", "group": "1"})
    assert data[0].obj == "a"


def test_pandas_kinds_of_missing_values_and_numbers():
    pandas = pytest.importorskip("pandas")
    for missing in (None, np.nan, pandas.NA, pandas.NaT):
        frame = pandas.DataFrame({"item": ["a", "b"], "group": pandas.Series(["g", missing], dtype=object)})
        with pytest.raises(DataError, match="row 1: the column 'group' is empty"):
            read_groups(frame)
    frame = pandas.DataFrame({"item": [1, 2], "group": pandas.Categorical(["g", "h"])})
    data = read_groups(frame)
    assert (type(data[0].obj), data.label_names) == (int, {0: "g", 1: "h"})
    assert type(read_records(frame)[0]["item"]) is int


def test_sources_are_not_changed():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"path": ["a", "b"], "label": [1, 2], "split": ["train", "train"]})
    before = frame.copy(deep=True)
    rows = [{"item": "a", "group": "g"}]
    read_groups(frame, root="photos")[0]
    read_groups(rows)[0]
    pandas.testing.assert_frame_equal(frame, before)
    assert rows == [{"item": "a", "group": "g"}]


class Decoded:
    """Counts how often images of a data set are decoded."""

    def __init__(self, monkeypatch):
        self.count = 0
        feature = pytest.importorskip("datasets").features.image.Image
        decode = feature.decode_example

        def counted(*args, **kwargs):
            self.count += 1
            return decode(*args, **kwargs)

        monkeypatch.setattr(feature, "decode_example", counted)


def picture(color):
    return Image.new("RGB", (4, 4), color)


def test_images_of_a_hugging_face_data_set_are_decoded_only_when_asked_for(monkeypatch):
    datasets = pytest.importorskip("datasets")
    source = datasets.Dataset.from_dict(
        {"item": [picture(c) for c in ("red", "blue", "red")], "group": [4, 5, 4], "other": [picture("red")] * 3},
        features=datasets.Features(
            {"item": datasets.Image(), "group": datasets.Value("int64"), "other": datasets.Image()}
        ),
    )
    decoded = Decoded(monkeypatch)
    data = read_groups(source)
    assert (data.groups.tolist(), decoded.count) == ([4, 5, 4], 0)
    assert data[1].obj.getpixel((0, 0)) == (0, 0, 255)
    assert decoded.count == 1, "neither the other column nor the other rows"


def test_a_hugging_face_data_set_keeps_its_order_and_transforms():
    datasets = pytest.importorskip("datasets")
    source = datasets.Dataset.from_dict({"item": list("abcd"), "group": [1, 2, 3, 4]})
    shuffled = source.select([2, 0, 3])
    assert [(s.obj, s.group) for s in map(read_groups(shuffled).__getitem__, range(3))] == [
        ("c", 3),
        ("a", 1),
        ("d", 4),
    ]
    marked = source.with_transform(
        lambda rows: {"item": [f"{i}{g}" for i, g in zip(rows["item"], rows["group"], strict=True)]}
    )
    assert read_groups(marked)[2].obj == "c3"
    assert read_groups(source.with_format("torch"))[2].group == 3


def test_collections_and_streams_of_hugging_face_say_what_to_do():
    datasets = pytest.importorskip("datasets")
    source = datasets.Dataset.from_dict({"item": ["a"], "group": [1]})
    with pytest.raises(DataError, match=r"a collection of data sets \('train', 'test'\); give one of them"):
        read_groups(datasets.DatasetDict(train=source, test=source))
    with pytest.raises(DataError, match="make it a data set of samples with SimilarityIterableDataset"):
        read_groups(source.to_iterable_dataset())


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("workers", [0, 2])
def test_groups_of_every_source_go_through_a_loader(make_source, kind, workers):
    data = read_groups(make_source(kind, [{"item": f"x{i}", "group": str(i % 2)} for i in range(6)]))
    loader = GroupSimilarityDataLoader(data, batch_size=4, num_workers=workers)
    assert [item for batch in loader for item in batch.objects] == [f"x{i}" for i in range(6)]
    assert pickle.loads(pickle.dumps(data))[3] == data[3]


def test_arrow_data_of_other_libraries_is_taken():
    pyarrow = pytest.importorskip("pyarrow")

    class Frame:
        def __arrow_c_stream__(self, requested_schema=None):
            return pyarrow.table({"item": ["a"], "group": ["g"]}).__arrow_c_stream__(requested_schema)

    assert open_table(Frame()).name == "the Frame"
    assert read_groups(Frame())[0].obj == "a"


def test_an_index_beyond_the_end_stops_iteration(make_source):
    for kind in SOURCES:
        data = read_groups(make_source(kind, [{"item": "x", "group": "a"}, {"item": "y", "group": "b"}]))
        assert [sample.obj for sample in data] == ["x", "y"]
        assert data[-1].obj == "y"


def test_a_parquet_file_without_pyarrow_says_what_to_install(make_source, monkeypatch):
    path = make_source("parquet", [{"item": "a", "group": "g"}])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'simtrain\[data\]'"):
        read_groups(path)


def test_reading_lists_loads_no_table_package():
    code = (
        "import sys; from simtrain.data import read_groups; read_groups([{'item': 'a', 'group': 'g'}]); "
        "print(*{'pandas', 'pyarrow', 'datasets', 'PIL'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
