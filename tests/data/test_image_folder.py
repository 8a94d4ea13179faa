import logging
import sys

import pytest
from PIL import Image

from simtrain.data import GroupSimilarityDataLoader, SimilarityGroupDataset, read_groups, read_image_folder
from simtrain.errors import DataError, MissingExtraError


def draw(path, size=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Noise, so that a large image is a large file.
    Image.effect_noise((size, size), 50).convert("RGB").save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for name in ("shoes/2.png", "shoes/10.jpg", "shoes/left/1.PNG", "hats/a/b/c.webp", "bags/x.jpeg"):
        draw(root / name)
    (root / "shoes" / "notes.txt").write_text("no image")
    (root / ".cache").mkdir()
    draw(root / ".cache" / "a.png")
    draw(root / "shoes" / "._2.png")
    draw(root / "loose.png")
    return root


def names(data, root):
    return [(data[i].obj.relative_to(root).as_posix(), data.label_names[data[i].group]) for i in range(len(data))]


def test_sub_folders_are_groups_in_the_order_of_their_names(folder):
    data = read_image_folder(folder)
    assert isinstance(data, SimilarityGroupDataset)
    assert names(data, folder) == [
        ("bags/x.jpeg", "bags"),
        ("hats/a/b/c.webp", "hats"),
        ("shoes/10.jpg", "shoes"),
        ("shoes/2.png", "shoes"),
        ("shoes/left/1.PNG", "shoes"),
    ]
    assert data.groups.tolist() == [0, 1, 2, 2, 2]
    assert data.label_names == {0: "bags", 1: "hats", 2: "shoes"}
    assert data.skipped == ()
    assert len(next(iter(GroupSimilarityDataLoader(data, batch_size=5, num_workers=2))).objects) == 5


def test_only_the_extensions_asked_for(folder):
    for extensions in (".png", "PNG", ["png"]):
        with pytest.raises(DataError, match=r"the sub-folder '.*bags' holds no image; names should end in .png"):
            read_image_folder(folder, extensions)
    (folder / "bags" / "x.jpeg").rename(folder / "bags" / "x.jpg")
    (folder / "hats" / "a" / "b" / "c.webp").rename(folder / "hats" / "c.jpg")
    assert [name for name, _ in names(read_image_folder(folder, [".jpg"]), folder)] == [
        "bags/x.jpg",
        "hats/c.jpg",
        "shoes/10.jpg",
    ]
    with pytest.raises(DataError, match="extensions should name one ending at least"):
        read_image_folder(folder, [])


def test_an_unreadable_image_is_named_with_its_number(folder):
    bad = folder / "shoes" / "10.jpg"
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"image 2: the image '{bad}' cannot be read: .* or pass on_error='skip'"):
        read_image_folder(folder)


def test_skipped_images_are_counted_and_kept(folder, caplog):
    bad = [folder / "bags" / "x.jpeg", folder / "shoes" / "10.jpg"]
    for path in bad:
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="simtrain"):
        data = read_image_folder(folder, on_error="skip")
    assert data.skipped == tuple(map(str, bad))
    assert [record.message for record in caplog.records] == [
        f"skipped 2 of 5 images that cannot be read: {bad[0]}, {bad[1]}"
    ]
    # A group whose images are all gone keeps its number.
    assert data.groups.tolist() == [1, 2, 2]
    assert data.label_names == {0: "bags", 1: "hats", 2: "shoes"}


def test_an_image_that_ends_too_early_is_found_by_decoding(folder):
    path = draw(folder / "bags" / "y.jpg", 200)
    path.write_bytes(path.read_bytes()[:3000])
    assert len(read_image_folder(folder)) == 6
    with pytest.raises(DataError, match=r"image 1: .*y.jpg' cannot be read: image file is truncated"):
        read_image_folder(folder, decode=True)
    # What is skipped is skipped now: left in, it would end the training.
    assert read_image_folder(folder, on_error="skip").skipped == (str(path),)
    assert read_image_folder(folder, on_error="skip", decode=False).skipped == ()


def test_an_image_of_a_table_that_ends_too_early_is_found_by_decoding(folder):
    path = draw(folder / "bags" / "y.jpg", 200)
    path.write_bytes(path.read_bytes()[:3000])
    table = folder / "table.csv"
    table.write_text("path,label\nshoes/2.png,s\nbags/y.jpg,b\nbags/x.jpeg,b\n")
    assert len(read_groups(table, on_error="raise")) == 3
    with pytest.raises(DataError, match=r"table.csv, line 3: .*y.jpg' cannot be read: image file is truncated"):
        read_groups(table, on_error="raise", decode=True)
    assert read_groups(table, on_error="skip").skipped == (str(path),)
    assert read_groups(table, on_error="skip", decode=False).skipped == ()


def test_nothing_readable_is_no_data_set(folder):
    for path in folder.rglob("*.*"):
        if path.is_file():
            path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 5 images can be read"):
        read_image_folder(folder, on_error="skip")


def test_folders_without_sub_folders_say_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder '.*none'; give one that has a sub-folder"):
        read_image_folder(tmp_path / "none")
    with pytest.raises(DataError, match=r"has no sub-folders \(it is empty\)"):
        read_image_folder(tmp_path)
    draw(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"has no sub-folders \(1 images lie in it directly\)"):
        read_image_folder(tmp_path)
    with pytest.raises(DataError, match=r"has no sub-folders \(it holds only files\)"):
        read_image_folder(tmp_path, ".jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"the sub-folder '.*empty' holds no image"):
        read_image_folder(tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        read_image_folder(tmp_path / "a.png")


@pytest.mark.usefixtures("without_type_checks")
def test_another_word_for_errors_is_refused(folder):
    with pytest.raises(DataError, match="on_error should be 'raise' or 'skip', got 'ignore'"):
        read_image_folder(folder, on_error="ignore")


def test_without_pillow_nothing_is_called_unreadable(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'simtrain\[vision\]'"):
        read_image_folder(folder, on_error="skip")


def test_paths_in_a_table_are_opened_if_asked(folder, tmp_path):
    table = folder / "table.csv"
    table.write_text("path,label\nshoes/2.png,s\nshoes/gone.png,s\nbags/x.jpeg,b\n")
    assert len(read_groups(table)) == 3
    with pytest.raises(DataError, match=r"table.csv, line 3: the image '.*gone.png' cannot be read: .*No such file"):
        read_groups(table, on_error="raise")
    data = read_groups(table, on_error="skip")
    assert names(data, folder) == [("shoes/2.png", "s"), ("bags/x.jpeg", "b")]
    assert data.skipped == (str(folder / "shoes" / "gone.png"),)


def test_damaged_images_inside_a_hugging_face_data_set_are_skipped(folder):
    datasets = pytest.importorskip("datasets")
    good = (folder / "bags" / "x.jpeg").read_bytes()
    source = datasets.Dataset.from_dict(
        {"item": [{"bytes": good, "path": None}, {"bytes": b"no image", "path": None}], "group": [1, 2]},
        features=datasets.Features({"item": datasets.Image(), "group": datasets.Value("int64")}),
    )
    with pytest.raises(DataError, match="row 1: the image 'the Hugging Face data set, row 1' cannot be read"):
        read_groups(source, on_error="raise")
    data = read_groups(source, on_error="skip")
    assert (data.groups.tolist(), data[0].obj.size) == ([1], (40, 40))
