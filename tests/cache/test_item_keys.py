import io
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from simtrain.cache import item_key, item_keys
from simtrain.errors import CacheError, DataError


@dataclass
class Product:
    title: Any
    price: float


def picture(mode: str, size: tuple[int, int], palette: list[int] | None = None) -> Image.Image:
    made = Image.frombytes(mode, size, b"abcdef")
    if palette:
        made.putpalette(palette)
    return made


def structured(*names: str) -> np.ndarray:
    """An array of objects with named fields."""
    made = np.empty(1, dtype=[(name, object) for name in names])
    made[0] = (1, 2)
    return made


class Described(dict[str, Any]):
    """A mapping with attributes."""


class Place(NamedTuple("Place", [("x", int)])):
    """A tuple with attributes."""


class Signal(torch.Tensor):
    """A tensor with attributes, as some libraries of images have."""


def noted(item: Any, note: Any) -> Any:
    """The item, with an attribute that a collate function may go by."""
    item.note = note
    return item


DISTINCT = [
    "1",
    1,
    1.5,
    True,
    b"1",
    None,
    "",
    b"",
    (),
    [],
    {},
    ("a", "b"),
    ["a", "b"],
    ["ab"],
    [["a"], "b"],
    [["a", "b"]],
    {"a": "b"},
    {"b": "a"},
    {"a": 1, "b": 2},
    {"b": 2, "a": 1},
    [{"a": 1, "b": {"c": 1, "d": 2}}],
    [{"a": 1, "b": {"d": 2, "c": 1}}],
    Product({"a": 1, "b": 2}, 1.0),
    Product({"b": 2, "a": 1}, 1.0),
    np.array([{"a": 1, "b": 2}], dtype=object),
    np.array([{"b": 2, "a": 1}], dtype=object),
    {"a", "b"},
    1j,
    np.array([1, 2]),
    np.array([[1, 2]]),
    np.array([1, 2], dtype=np.int32),
    np.array([1.0, 2.0]),
    np.array(1),
    np.array(["a", 1], dtype=object),
    np.zeros((0, 3)),
    np.zeros((0, 4)),
    torch.tensor([1, 2]),
    torch.tensor([1.0, 2.0]),
    torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
    torch.tensor(1.0),
    torch.zeros(0),
    Product("shoe", 1.0),
    Product("shoe", 2.0),
    picture("RGB", (2, 1)),
    picture("L", (2, 3)),
    picture("L", (3, 2)),
    picture("P", (3, 2), [0, 1, 0]),
    picture("P", (3, 2), [1, 0, 0]),
    structured("a", "b"),
    structured("b", "a"),
    memoryview(np.ones(2, dtype=np.int32)),
    memoryview(np.ones(2, dtype=np.int32).view(np.float32)),
    memoryview(np.ones((2, 1), dtype=np.int32)),
    np.int64(1),
    np.int8(1),
    np.float32(1.5),
    np.float64(1.5),
    np.array([[1, 2]]).view(np.matrix),
    noted(Product("shoe", 1.0), note=1),
    noted(Product("shoe", 1.0), note=2),
    noted(Described(a=1), note=1),
    noted(Described(a=1), note=2),
    noted(Place(1), note=1),
    noted(Place(1), note=2),
    noted(torch.ones(2).as_subclass(Signal), note=1),
    noted(torch.ones(2).as_subclass(Signal), note=2),
]


def test_different_items_have_different_keys():
    keys = [item_key(item) for item in DISTINCT]
    assert len(set(keys)) == len(DISTINCT)
    assert {len(key) for key in keys} == {16}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, np.bool_(True)),
        (b"ab", memoryview(b"ab")),
        ("a", np.str_("a")),
        (np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(6).reshape(2, 3)),
        (torch.arange(6).reshape(3, 2).T, torch.arange(6).reshape(3, 2).T.contiguous()),
        ({"a": 1, "b": 2}, OrderedDict(a=1, b=2)),
        (Product("shoe", 1.0), Product("shoe", 1.0)),
        (torch.ones(2, requires_grad=True), torch.ones(2)),
    ],
)
def test_equal_items_have_equal_keys(one, other):
    assert item_key(one) == item_key(other)


@given(st.lists(st.one_of(st.text(), st.integers(), st.binary()), max_size=8))
def test_many_keys_are_the_keys_of_each(items):
    keys = item_keys(items)
    assert keys.shape == (len(items), 16)
    assert [row.tobytes() for row in keys] == [item_key(item) for item in items]


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_texts_have_one_key_each_even_with_lone_surrogates(one, other):
    assert (item_key(one) == item_key(other)) == (one == other)


def test_files_are_known_by_place_size_and_time(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    key = item_key(path)
    assert item_key(path) == key
    os.utime(path, ns=(1, 2))
    assert item_key(path) != key
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    assert item_key(path) != key


def test_a_missing_file_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        item_key(tmp_path / "none.png")


def test_a_folder_asks_for_a_key_extractor(tmp_path: Path):
    with pytest.raises(DataError, match=r"is a folder, .*; set CacheConfig\(key_extractors=...\) to a function"):
        item_key(tmp_path)
    assert item_keys([tmp_path], lambda folder: sorted(path.name for path in folder.iterdir())).shape == (1, 16)


def test_a_text_that_is_a_path_is_known_by_the_text_alone(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    keys = item_key(str(path)), item_keys([str(path)], Path).tobytes()
    path.write_bytes(b"another")
    assert item_key(str(path)) == keys[0]
    assert item_keys([str(path)], Path).tobytes() != keys[1]


class Drawing:
    """Has the attributes of an image, and one that says what is drawn."""

    mode, size = "L", (1, 1)

    def tobytes(self) -> bytes:
        return b"a"


@pytest.mark.parametrize("item", [object(), [object()], len, Drawing(), np.ma.array([1], mask=[True])])
def test_unknown_kinds_ask_for_a_key_extractor(item):
    with pytest.raises(CacheError, match=r"cannot be identified by its content; set CacheConfig\(key_extractors=...\)"):
        item_key(item)


def test_a_key_extractor_gives_the_key():
    assert np.array_equal(item_keys([object(), object()], lambda item: "same"), item_keys(["same", "same"]))


def test_a_key_extractor_must_give_plain_values():
    with pytest.raises(CacheError, match="must give texts, bytes, numbers or tuples of them; for the item"):
        item_keys(["a"], lambda item: object())


def test_what_preprocessing_reads_of_an_image_besides_its_pixels_counts():
    image = pytest.importorskip("PIL.Image")

    def turned(orientation):
        picture = image.new("RGB", (4, 6), "red")
        picture.getexif()[0x0112] = orientation
        return picture

    def with_note(name, value):
        picture = image.new("RGB", (4, 6), "red")
        picture.info[name] = value
        return picture

    def with_palette(mode, colours):
        picture = image.new("P", (2, 2))
        picture.putpalette(colours, mode)
        return picture

    assert item_key(turned(1)) != item_key(turned(6))
    assert item_key(turned(6)) == item_key(turned(6))
    notes = [("transparency", (255, 0, 0)), ("transparency", None), ("icc_profile", b"a"), ("icc_profile", b"b")]
    assert len({item_key(with_note(*note)) for note in notes}) == 4
    opaque, clear = with_palette("RGBA", bytes([9, 9, 9, 255])), with_palette("RGBA", bytes([9, 9, 9, 0]))
    assert item_key(opaque) != item_key(clear)


def test_the_names_and_types_of_an_arrays_fields_count():
    raw = np.arange(4, dtype="i4")
    assert item_key(raw.view([("a", "f4"), ("b", "f4")])) != item_key(raw.view([("x", "i4"), ("y", "i4")]))


def test_all_frames_of_a_film_count():
    def film(last: int) -> Any:
        frames = [Image.new("L", (4, 4), shade) for shade in (0, 90, last)]
        frames[0].save(file := io.BytesIO(), "GIF", save_all=True, append_images=frames[1:])
        return Image.open(file)

    one, other = film(200), film(250)
    assert item_key(one) == item_key(film(200)) != item_key(other)
    one.seek(1)
    assert item_key(one) != item_key(film(200))  # a collate function may take the frame at hand
    assert one.tell() == 1
    item_key(one.copy())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_have_no_content_to_go_by():
    with pytest.raises(CacheError, match="an item of type Tensor cannot be identified by its content"):
        item_key(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))
