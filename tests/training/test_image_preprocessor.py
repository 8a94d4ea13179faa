import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from simtrain.errors import ConfigError, ContractError, DataError
from simtrain.training.image_preprocessor import ImageDataPreprocessor

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def images_of(sizes, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=generator)
        for height, width in sizes
    ]


def by_hand(images, mean, std, flip, divisor, pad_value):
    """Pixel by pixel, in Python's own floats."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    height, width = (-(-size // divisor) * divisor for size in (height, width))
    out = torch.full((len(images), images[0].shape[0], height, width), float(pad_value), dtype=torch.float64)
    for n, image in enumerate(images):
        channels = image.tolist()[::-1] if flip else image.tolist()
        for c, rows in enumerate(channels):
            m, s = (0.0, 1.0) if mean is None else (mean[c % len(mean)], std[c % len(std)])
            for y, row in enumerate(rows):
                for x, pixel in enumerate(row):
                    out[n, c, y, x] = (pixel - m) / s
    return out


SIZE = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(
    sizes=st.lists(SIZE, min_size=1, max_size=3),
    statistics=st.sampled_from([(None, None), ([127.5], [2]), (MEAN, STD)]),
    flip=st.sampled_from([None, "bgr_to_rgb", "rgb_to_bgr"]),
    divisor=st.integers(1, 5),
    pad_value=st.sampled_from([0, -1.5]),
)
def test_a_list_is_what_a_plain_loop_makes_of_it(sizes, statistics, flip, divisor, pad_value):
    images = images_of(sizes)
    words = {} if flip is None else {flip: True}
    preprocessor = ImageDataPreprocessor(*statistics, pad_size_divisor=divisor, pad_value=pad_value, **words)
    expected = by_hand(images, *statistics, flip, divisor, pad_value)
    outputs = preprocessor({"inputs": images})["inputs"]
    assert outputs.dtype is torch.float32
    torch.testing.assert_close(outputs.double(), expected, rtol=1e-6, atol=1e-6)
    same = [torch.ones_like(images[0]), images[0]]
    stacked = preprocessor({"inputs": torch.stack(same)})["inputs"]
    assert torch.equal(stacked, preprocessor({"inputs": same})["inputs"]), "a tensor is a list of images of one size"


def test_the_batch_keeps_its_other_fields_and_is_not_changed():
    images = images_of([(2, 2), (3, 1)])
    batch = {"inputs": images, "weight": 2, "data_samples": ["a", "b"]}
    result = ImageDataPreprocessor()(batch, training=True)
    assert result["weight"] == 2
    assert result["data_samples"] == ["a", "b"]
    assert batch["inputs"] is images
    assert ImageDataPreprocessor()({"inputs": images})["data_samples"] is None


def test_floating_images_in_place_are_not_changed():
    images = torch.rand(2, 3, 4, 4)
    before = images.clone()
    ImageDataPreprocessor([0.5], [0.5], bgr_to_rgb=True, pad_size_divisor=3)({"inputs": images})
    assert torch.equal(images, before)


def test_bytes_travel_as_bytes():
    class Recorded(torch.Tensor):
        def to(self, *args, **kwargs):
            calls.append((self.dtype, *args))
            return super().to(*args, **kwargs)

    calls = []
    image = images_of([(2, 2)])[0].as_subclass(Recorded)
    ImageDataPreprocessor(MEAN, STD).to("meta")({"inputs": [image]})
    assert calls[0] == (torch.uint8, torch.device("meta"))
    assert calls[1] == (torch.uint8, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_cast_model_gets_its_dtype_and_loses_no_precision_on_the_way(dtype):
    images = images_of([(5, 7)] * 3)
    preprocessor = ImageDataPreprocessor(MEAN, STD, bgr_to_rgb=True)
    nn.Sequential(preprocessor, nn.Linear(1, 1)).to(torch.bfloat16).to(dtype)
    outputs = preprocessor({"inputs": images})["inputs"]
    assert outputs.dtype is dtype
    if dtype is torch.float64:
        torch.testing.assert_close(outputs, by_hand(images, MEAN, STD, True, 1, 0), rtol=1e-14, atol=1e-14)
    else:
        exact = ImageDataPreprocessor(MEAN, STD, bgr_to_rgb=True)({"inputs": images})["inputs"]
        assert torch.equal(outputs, exact.to(dtype)), "rounded once, at the end"


def test_statistics_are_in_no_checkpoint_and_survive_a_copy():
    preprocessor = ImageDataPreprocessor(MEAN, STD)
    inputs = torch.stack(images_of([(2, 2)]))
    expected = preprocessor({"inputs": inputs})["inputs"]
    assert preprocessor.state_dict() == {}
    assert torch.equal(copy.deepcopy(preprocessor)({"inputs": inputs})["inputs"], expected)


def test_training_differentiates_after_a_validation_in_inference_mode():
    preprocessor = ImageDataPreprocessor([1.0], [2.0])
    with torch.inference_mode():
        preprocessor({"inputs": torch.ones(1, 3, 2, 2)})
    inputs = torch.ones(1, 3, 2, 2, requires_grad=True)
    preprocessor({"inputs": inputs})["inputs"].sum().backward()
    assert torch.equal(inputs.grad, torch.full_like(inputs, 0.5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_what_the_cpu_gives():
    images = images_of([(5, 7), (6, 2)])
    preprocessor = ImageDataPreprocessor(MEAN, STD, pad_size_divisor=8, bgr_to_rgb=True)
    expected = preprocessor({"inputs": images})["inputs"]
    outputs = preprocessor.cuda()({"inputs": images})["inputs"]
    assert outputs.device.type == "cuda"
    torch.testing.assert_close(outputs.cpu(), expected)


def test_no_images_in_a_tensor_are_none_padded():
    outputs = ImageDataPreprocessor(MEAN, STD, 4)({"inputs": torch.zeros(0, 3, 5, 6, dtype=torch.uint8)})["inputs"]
    assert outputs.shape == (0, 3, 8, 8)
    assert outputs.dtype is torch.float32


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.ones(1, 3, 2, 2), "takes a batch that is a dict with 'inputs', got a Tensor; put a NamedFieldsPrep"),
        ((torch.ones(1, 3, 2, 2),), "takes a batch that is a dict with 'inputs', got a tuple"),
        ({"images": 1, "labels": 2}, r"takes a batch with 'inputs', got the fields \['images', 'labels'\]"),
        ({"inputs": "cat.png"}, "'inputs' should be a tensor or a list of tensors, got a str"),
        ({"inputs": [torch.ones(3, 2, 2), "cat.png"]}, "image 1 of the batch should be a tensor, got a str"),
    ],
)
def test_a_batch_of_another_kind_breaks_the_contract(batch, message):
    with pytest.raises(ContractError, match=message):
        ImageDataPreprocessor()(batch)


@pytest.mark.parametrize(
    ("words", "inputs", "message"),
    [
        ({}, [], "'inputs' is an empty list: a batch needs at least one image"),
        ({}, torch.ones(3, 2, 2), r"has the shape \(batch, channel, height, width\), got \(3, 2, 2\)"),
        ({}, [torch.ones(3, 2, 2), torch.ones(2, 2)], r"image 1 of the batch .* width\), got \(2, 2\)"),
        ({}, [torch.ones(3, 2, 2), torch.ones(1, 2, 2)], r"should have one number of channels, got \[1, 3\]"),
        ({"bgr_to_rgb": True}, torch.ones(2, 4, 2, 2), "only images of 3 channels can be turned .* got 4 channels"),
        ({"rgb_to_bgr": True}, [torch.ones(1, 2, 2)], "only images of 3 channels can be turned .* got 1 channels"),
        ({"mean": MEAN, "std": STD}, torch.ones(2, 1, 2, 2), "have 3 values each, the images 1 channels; give one"),
        ({"mean": MEAN, "std": STD}, [torch.ones(4, 2, 2)], "have 3 values each, the images 4 channels"),
    ],
)
def test_images_of_wrong_shapes_are_an_error(words, inputs, message):
    with pytest.raises(DataError, match=message):
        ImageDataPreprocessor(**words)({"inputs": inputs})


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_mean_serves_any_number_of_channels(channels):
    inputs = torch.full((1, channels, 2, 2), 3, dtype=torch.uint8)
    outputs = ImageDataPreprocessor([1], [2])({"inputs": inputs})["inputs"]
    assert torch.equal(outputs, torch.ones(1, channels, 2, 2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"mean": MEAN}, r"mean and std go together; give both or neither, got mean=\[123.675, .* and std=None"),
        ({"std": [1.0]}, r"mean and std go together; give both or neither, got mean=None and std=\[1.0\]"),
        ({"mean": [1.0, 2.0], "std": [1.0, 2.0]}, "should have 1 or 3 values, and both as many, got 2 and 2 values"),
        ({"mean": [], "std": []}, "should have 1 or 3 values, and both as many, got 0 and 0 values"),
        ({"mean": MEAN, "std": [1.0]}, "should have 1 or 3 values, and both as many, got 3 and 1 values"),
        ({"mean": [1.0], "std": [0]}, r"std should hold finite numbers above 0, got \[0\]"),
        ({"mean": MEAN, "std": [1, 1, -1]}, r"std should hold finite numbers above 0, got \[1, 1, -1\]"),
        ({"mean": [1.0], "std": [math.nan]}, r"std should hold finite numbers above 0, got \[nan\]"),
        ({"mean": [math.inf], "std": [1.0]}, r"mean should hold finite numbers, got \[inf\]"),
        ({"bgr_to_rgb": True, "rgb_to_bgr": True}, "bgr_to_rgb and rgb_to_bgr undo each other; set at most one"),
        ({"pad_size_divisor": 0}, "pad_size_divisor must be a positive integer, got 0"),
        ({"pad_size_divisor": True}, "pad_size_divisor must be a positive integer, got True"),
    ],
)
def test_settings_out_of_range_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        ImageDataPreprocessor(**words)
