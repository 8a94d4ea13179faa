"""The papers' image sets, read from miniatures in the layouts of the releases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from simtrain.data import QueryGallery
from simtrain.errors import DataError
from simtrain.evaluation import retrieval_task
from simtrain.evaluation.image_sets import (
    ImageSet,
    read_cars196,
    read_cub200,
    read_in_shop,
    read_inaturalist,
    read_online_products,
)
from simtrain.evaluation.image_sets.image_set import grouped


def touch(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def cub(tmp_path):
    names = [f"{label:03d}.Bird/Bird_{label}_{n}.jpg" for label in (1, 100, 101, 200) for n in range(2)]
    root = tmp_path / "CUB_200_2011"
    touch(root / "images", names)
    rows = list(enumerate(names, 1))
    (root / "images.txt").write_text("".join(f"{row} {name}\n" for row, name in rows))
    (root / "image_class_labels.txt").write_text("".join(f"{row} {int(name[:3])}\n" for row, name in rows))
    (root / "classes.txt").write_text("".join(f"{label} {label:03d}.Bird\n" for label in range(1, 201)))
    return tmp_path


@pytest.fixture
def cars(tmp_path):
    labels = [1, 1, 98, 99, 196, 99]
    names = [f"car_ims/{row:06d}.jpg" for row in range(1, 7)]
    touch(tmp_path, names)
    rows = np.array(
        [(name, 1, 2, 3, 4, label, row % 2) for row, (name, label) in enumerate(zip(names, labels, strict=True))],
        dtype=[(field, object) for field in ("relative_im_path", "x1", "y1", "x2", "y2", "class", "test")],
    )
    classes = np.array([f"car {label}" for label in range(1, 197)], dtype=object)
    savemat(tmp_path / "cars_annos.mat", {"annotations": rows, "class_names": classes})
    return tmp_path


@pytest.fixture
def products(tmp_path):
    for half, first in (("train", 1), ("test", 4)):
        names = [f"{kind}_final/{first}{n}.JPG" for kind in ("chair", "sofa") for n in range(2)]
        touch(tmp_path, names)
        rows = [f"{row} {first + row // 2} 1 {name}\n" for row, name in enumerate(names)]
        (tmp_path / f"Ebay_{half}.txt").write_text("image_id class_id super_class_id path\n" + "".join(rows))
    return tmp_path


@pytest.fixture
def in_shop(tmp_path):
    rows = [("train", 1), ("train", 1), ("query", 7), ("gallery", 7), ("gallery", 7), ("query", 8), ("gallery", 8)]
    names = [f"img/WOMEN/Tees/id_{item:08d}/0{row}_front.jpg" for row, (_, item) in enumerate(rows)]
    touch(tmp_path / "Img", names)
    lines = [f"{name} id_{item:08d} {part}\n" for name, (part, item) in zip(names, rows, strict=True)]
    (tmp_path / "Eval").mkdir()
    text = f"{len(rows)}\nimage_name item_id evaluation_status\n" + "".join(lines)
    (tmp_path / "Eval" / "list_eval_partition.txt").write_text(text)
    return tmp_path


@pytest.fixture
def inaturalist(tmp_path):
    (tmp_path / "Inat_dataset_splits").mkdir()
    for half, species in (("train", ["Aves/12", "Aves/13"]), ("test", ["Aves/20", "Fungi/12"])):
        names = [f"train_val2018/{one}/{half}{n}.jpg" for one in species for n in range(2)]
        touch(tmp_path, names)
        (tmp_path / "Inat_dataset_splits" / f"Inaturalist_{half}_set1.txt").write_text("\n".join(names))
    return tmp_path


def groups(data):
    return data.groups.tolist()


def test_cub200(cub):
    found = read_cub200(cub, official=False)
    assert (found.name, found.k) == ("CUB-200-2011", (1, 2, 4, 8))
    assert found.metrics == ("hit_rate@1", "hit_rate@2", "hit_rate@4", "hit_rate@8")
    assert (groups(found.train), groups(found.test)) == ([1, 1, 100, 100], [101, 101, 200, 200])
    assert found.train[0].obj == cub / "CUB_200_2011" / "images" / "001.Bird" / "Bird_1_0.jpg"
    assert found.test.label_names == {101: "101.Bird", 200: "200.Bird"}
    inner = read_cub200(cub / "CUB_200_2011", official=False)
    assert inner.test[3].obj == found.test[3].obj
    (cub / "CUB_200_2011" / "classes.txt").unlink()
    assert groups(read_cub200(cub, official=False).test) == groups(found.test)


def test_cars196(cars):
    found = read_cars196(cars, official=False)
    assert (found.name, found.k) == ("Cars196", (1, 2, 4, 8))
    assert (groups(found.train), groups(found.test)) == ([1, 1, 98], [99, 196, 99])
    assert found.test[1].obj == cars / "car_ims" / "000005.jpg"
    assert found.test.label_names == {99: "car 99", 196: "car 196"}


def test_online_products(products):
    found = read_online_products(products, official=False)
    assert (found.name, found.k) == ("Stanford Online Products", (1, 10, 100, 1000))
    assert (groups(found.train), groups(found.test)) == ([1, 1, 2, 2], [4, 4, 5, 5])
    assert found.test[2].obj == products / "sofa_final" / "40.JPG"


def test_in_shop(in_shop):
    found = read_in_shop(in_shop, official=False)
    assert (found.name, found.k) == ("In-Shop Clothes Retrieval", (1, 10, 20, 30))
    assert groups(found.train) == [0, 0]
    assert isinstance(found.test, QueryGallery)
    assert (found.test.query_labels, found.test.gallery_labels) == ([1, 2], [1, 1, 2])
    assert found.test.queries[1] == in_shop / "Img" / "img" / "WOMEN" / "Tees" / "id_00000008" / "05_front.jpg"
    assert found.test.label_names[2] == "id_00000008"


def test_inaturalist(inaturalist):
    found = read_inaturalist(inaturalist, official=False)
    assert (found.name, found.k) == ("iNaturalist-2018", (1, 4, 16, 32))
    # A number stands for another species in another kingdom.
    assert (groups(found.train), groups(found.test)) == ([0, 0, 1, 1], [2, 2, 3, 3])
    assert found.test.label_names == {2: "Aves/20", 3: "Fungi/12"}
    assert found.test[3].obj == inaturalist / "train_val2018" / "Fungi" / "12" / "test1.jpg"


def test_the_tests_are_tests(cub, in_shop):
    alone = retrieval_task(read_cub200(cub, official=False).test)
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.9, 0.0]])
    result = alone.score(vectors, k=(1, 2, 4, 8))
    assert result.metrics["hit_rate@1"] == 0.25
    searched = retrieval_task(read_in_shop(in_shop, official=False).test)
    result = searched.score(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.2], [0.1, 1.0], [0.9, 0.1]]))
    assert result.n_gallery == 3
    assert result.metrics["hit_rate@1"] == 0.0


READERS = {
    "cub": (read_cub200, r"images\.txt lists 4 training images, CUB-200-2011 has 5,864"),
    "cars": (read_cars196, r"cars_annos\.mat lists 3 training images, Cars196 has 8,054"),
    "products": (read_online_products, r"Ebay_train\.txt lists 4 images, Stanford Online Products has 59,551"),
    "in_shop": (read_in_shop, r"list_eval_partition\.txt lists 2 train images, In-Shop .* has 25,882"),
    "inaturalist": (read_inaturalist, r"Inaturalist_train_set1\.txt lists 4 images, iNaturalist-2018 has 325,846"),
}


@pytest.mark.parametrize("name", READERS)
def test_other_sizes_than_the_published_ones_are_refused(name, request):
    read, message = READERS[name]
    with pytest.raises(DataError, match=message + ".*truncated or of another release; official=False"):
        read(request.getfixturevalue(name))


@pytest.mark.parametrize("name", READERS)
def test_missing_images_and_files_are_named(name, request, tmp_path):
    read, _ = READERS[name]
    root = request.getfixturevalue(name)
    image = sorted(path for path in root.rglob("*") if path.suffix.lower() == ".jpg")[-1]
    image.unlink()
    with pytest.raises(DataError, match=rf"1 of \d+ listed images are not there, such as .*{image.name}"):
        read(root, official=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"should have the file '.*\.(txt|mat)'.*; it has none"):
        read(tmp_path / "empty")
    with pytest.raises(DataError, match="there is no such folder"):
        read(tmp_path / "nowhere")


def rewrite(path: Path, change):
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("cub", "CUB_200_2011/images.txt", lambda text: text[:-30], r"images\.txt, line 8: expected 2|lists 7 images"),
        ("cub", "CUB_200_2011/image_class_labels.txt", lambda text: text[:20], "has no class for image 5; it is trunc"),
        (
            "cub",
            "CUB_200_2011/image_class_labels.txt",
            lambda text: text + "9 1\n",
            "lists 8 images, .* 9: one is trunc",
        ),
        ("cub", "CUB_200_2011/image_class_labels.txt", lambda text: "1 x\n", "line 1: the class should be an integer"),
        ("cub", "CUB_200_2011/classes.txt", lambda text: "1 a\n", r"classes\.txt has no name for class 100"),
        ("products", "Ebay_test.txt", lambda text: text[:-20], r"Ebay_test\.txt, line 5: expected 4 columns"),
        ("products", "Ebay_test.txt", lambda text: "", r"Ebay_test\.txt lists no images"),
        ("products", "Ebay_test.txt", lambda text: text.replace(" 4 ", " 2 "), "1 classes are in training and test"),
        ("in_shop", "Eval/list_eval_partition.txt", lambda text: text[: text.rindex("img/")], "7 images and lists 6"),
        (
            "in_shop",
            "Eval/list_eval_partition.txt",
            lambda text: text.replace("query", "probe"),
            "line 5: the status is",
        ),
        (
            "in_shop",
            "Eval/list_eval_partition.txt",
            lambda text: text.replace("query", "train"),
            "there are no query im",
        ),
        (
            "inaturalist",
            "Inat_dataset_splits/Inaturalist_test_set1.txt",
            lambda text: "a.jpg",
            "line 1: expected a path",
        ),
    ],
)
def test_truncated_lists_are_named(name, file, change, message, request):
    root = request.getfixturevalue(name)
    rewrite(root / file, change)
    with pytest.raises(DataError, match=message):
        READERS[name][0](root, official=False)


def test_a_damaged_or_other_mat_file_is_named(cars):
    path = cars / "cars_annos.mat"
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"no mat file" * 50):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot be read as cars_annos\.mat"):
            read_cars196(cars, official=False)
    savemat(path, {"other": [1]})
    with pytest.raises(DataError, match=r"cannot be read as cars_annos\.mat .*annotations"):
        read_cars196(cars, official=False)


@pytest.mark.slow
def test_a_set_of_the_published_size_is_taken(products):
    for half, images, classes, first in (("train", 59_551, 11_318, 0), ("test", 60_502, 11_316, 11_318)):
        rows = [f"{row} {first + row % classes} 1 chair_final/10.JPG\n" for row in range(images)]
        (products / f"Ebay_{half}.txt").write_text("image_id class_id super_class_id path\n" + "".join(rows))
    found = read_online_products(products)
    assert (len(found.train), len(found.test)) == (59_551, 60_502)


def test_classes_on_both_sides_are_refused():
    with pytest.raises(DataError, match="mine: 1 classes are in training and test, such as 3"):
        ImageSet("mine", grouped([Path("a")], [3]), grouped([Path("b"), Path("c")], [3, 4]), k=(1,))
