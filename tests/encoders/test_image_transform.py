from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simtrain.encoders import ItemError
from simtrain.encoders.image_items import read_image
from simtrain.encoders.image_transform import ImageCollate, ImageTransform, built_transform
from simtrain.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")


def picture(width: int = 30, height: int = 20) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def as_bytes(image: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", **options)
    return file.getvalue()


def test_all_forms_of_one_image_are_read_alike(tmp_path: Path) -> None:
    pixels = picture()
    (tmp_path / "a.png").write_bytes(as_bytes(Image.fromarray(pixels)))
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    forms = [
        Image.fromarray(pixels),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        bytearray((tmp_path / "a.png").read_bytes()),
        pixels,
        np.asfortranarray(pixels),
        channels_first,
        channels_first.float() / 255,
        channels_first.double() / 255,
    ]
    for form in forms:
        image = read_image(form)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_gray_becomes_rgb() -> None:
    gray = picture()[..., 0]
    deep = Image.fromarray((gray.astype(np.uint16) << 8) + 7)
    for form in (gray, gray[..., None], torch.from_numpy(gray)[None], Image.fromarray(gray), deep):
        np.testing.assert_array_equal(np.asarray(read_image(form)), np.repeat(gray[..., None], 3, axis=2))


def test_transparent_parts_are_white() -> None:
    pixels = np.dstack([picture(), np.zeros((20, 30), np.uint8)])
    pixels[:10, :, 3] = 255
    indexed = Image.new("P", (30, 20))
    for form in (pixels, Image.fromarray(pixels), as_bytes(Image.fromarray(pixels))):
        read = np.asarray(read_image(form))
        np.testing.assert_array_equal(read[:10], pixels[:10, :, :3])
        assert (read[10:] == 255).all()
    assert (np.asarray(read_image(as_bytes(indexed, transparency=0))) == 255).all()


def test_photos_are_turned_upright() -> None:
    image, turned = Image.fromarray(picture()), Image.Exif()
    turned[0x0112] = 6
    assert read_image(as_bytes(image, exif=turned)).size == (20, 30)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "must be a PIL image, a file's path, .* got NoneType None"),
        (b"no image", "is 8 bytes that cannot be read as an image"),
        (Path("no-such-file.png"), "is the file 'no-such-file.png', which cannot be read .*FileNotFoundError"),
        (picture().astype(np.float32), r"got an array of float32 of shape \(20, 30, 3\)"),
        (np.zeros((3, 20, 30), np.uint8), r"got an array of uint8 of shape \(3, 20, 30\)"),
        (np.zeros((0, 2, 3), np.uint8), r"got an array of uint8 of shape \(0, 2, 3\)"),
        (torch.zeros(20, 30, 3), r"got a tensor of torch.float32 of shape \(20, 30, 3\)"),
        (torch.full((3, 2, 2), 255.0), "must have values from 0 to 1 as a float tensor, got 255 to 255"),
        (torch.full((3, 2, 2), torch.nan), "must have values from 0 to 1 as a float tensor, got nan to nan"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), r"got an array of int64"),
    ],
)
def test_what_cannot_be_read_is_an_error(item: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_image(item)


def test_an_unreadable_file_is_named_with_its_position(tmp_path: Path) -> None:
    whole = as_bytes(Image.fromarray(picture(300, 200)))
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    collate = ImageCollate(ImageTransform(8))
    with pytest.raises(ItemError, match=rf"^item 1 is the file '{tmp_path / 'cut.png'}', which cannot be read"):
        collate([picture(), tmp_path / "cut.png"])
    lazy = Image.open(tmp_path / "cut.png")
    with pytest.raises(ItemError, match=r"^item 0 is an image that cannot be read"):
        collate([lazy])
    lazy.close()


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["bicubic", "bilinear", "lanczos"]))
def test_any_size_is_brought_to_one(width: int, height: int, interpolation: str) -> None:
    tensor = ImageTransform(7, interpolation=interpolation)(np.full((height, width, 3), 77, np.uint8))
    assert tensor.shape == (3, 7, 7)
    assert tensor.dtype is torch.uint8
    assert (tensor == 77).all()


def test_the_middle_square_is_cut_out() -> None:
    pixels = picture(64, 32)
    tensor = ImageTransform(16, crop=0.5)(pixels)
    np.testing.assert_array_equal(
        tensor.permute(1, 2, 0).numpy(), pixels[8:24, 24:40]
    )  # 16 of 32 pixels, in the middle, need no resizing
    smooth = np.linspace(0, 255, 64).astype(np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    ours = ImageTransform(14)(smooth).permute(1, 2, 0).numpy().astype(float)
    resized = Image.fromarray(smooth).resize((round(16 * 64 / 48), 16), Image.Resampling.BICUBIC)
    left = (resized.width - 14) // 2
    usual = np.asarray(resized.crop((left, 1, left + 14, 15))).astype(float)
    assert np.abs(ours - usual).max() <= 8  # half a step of rounding: the slope is 12 a pixel


def test_a_panorama_needs_no_memory_for_its_length() -> None:
    assert ImageTransform(64)(np.zeros((2, 60_000, 3), np.uint8)).shape == (3, 64, 64)


def test_collating_can_go_to_workers_and_takes_no_items() -> None:
    collate = pickle.loads(pickle.dumps(ImageCollate(ImageTransform(8))))
    assert collate([picture(), picture(9, 50)]).shape == (2, 3, 8, 8)
    assert collate([]).shape == (0, 3, 8, 8)
    assert collate([]).dtype is torch.uint8


def test_settings_are_checked() -> None:
    assert built_transform({"crop": 1.0, "interpolation": "bilinear"}, 8) == ImageTransform(8, 1.0, "bilinear")
    with pytest.raises(ConfigError, match="transform has no setting 'crops'; did you mean 'crop'"):
        built_transform({"crops": 1.0}, 8)
    with pytest.raises(ConfigError, match="transform must be a function or settings of ImageTransform, got 3"):
        built_transform(3, 8)
    with pytest.raises(ConfigError, match=r"crop must be above 0 and at most 1, got 1\.5"):
        ImageTransform(8, crop=1.5)
    with pytest.raises(ConfigError, match="unknown interpolation 'cubic'; did you mean 'bicubic'"):
        ImageTransform(8, interpolation="cubic")
    with pytest.raises(ConfigError, match="image_size must be a positive integer, got 0"):
        ImageTransform(0)
