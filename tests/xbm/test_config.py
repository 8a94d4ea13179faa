import pytest
import torch

from simtrain.errors import ConfigError
from simtrain.xbm import XbmConfig


def test_defaults():
    config = XbmConfig()
    assert (config.weight, config.buffer_size, config.start_iteration) == (1.0, 10_000, 1_000)
    assert (config.device, config.dtype) == ("auto", torch.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.bfloat16", torch.bfloat16])
def test_a_dtype_may_be_named(dtype):
    assert XbmConfig(dtype=dtype).dtype == torch.bfloat16


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda:1", torch.device("cpu")])
def test_devices(device):
    assert XbmConfig(device=device).device == device


def test_whole_numbers_are_weights():
    assert XbmConfig(weight=2, start_iteration=0, buffer_size=1).weight == 2


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"weight": 0},
            "XbmConfig: weight must be a finite number above zero, got 0; to train without a memory, give no",
        ),
        ({"weight": float("nan")}, "weight must be a finite number above zero, got nan"),
        ({"weight": "1"}, "weight must be a finite number above zero, got '1'"),
        ({"buffer_size": 0}, "XbmConfig: buffer_size must be a whole number, 1 or more, got 0"),
        ({"buffer_size": 10.5}, "buffer_size must be a whole number, 1 or more, got 10.5"),
        ({"buffer_size": True}, "buffer_size must be a whole number, 1 or more, got True"),
        ({"start_iteration": -1}, "XbmConfig: start_iteration must be a whole number, 0 or more, got -1"),
        (
            {"device": "graphics"},
            "XBM: device must be 'auto' or a torch device such as 'cpu' or 'cuda:0', got 'graphics'",
        ),
        ({"device": None}, "XBM: device must be 'auto' or a torch device .*, got None"),
        ({"dtype": "half a float"}, "XBM: dtype must be a floating point type .*, got 'half a float'"),
        ({"dtype": torch.int64}, "XBM: dtype must be a floating point type .*, got torch.int64"),
        ({"dtype": "Tensor"}, "XBM: dtype must be a floating point type .*, got 'Tensor'"),
    ],
)
def test_wrong_settings_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        XbmConfig(**words)


def test_the_papers_setting_by_name():
    expected = XbmConfig(weight=1.0, buffer_size=55_000, start_iteration=1_000)
    assert XbmConfig.paper(59_551) == expected == XbmConfig.from_words({"preset": "paper", "n_items": 59_551})
    assert XbmConfig.from_words({"preset": "paper", "n_items": 800, "weight": 2}).buffer_size == 800
    assert XbmConfig.from_words({"buffer_size": 7, "momentum": 0.9}) == XbmConfig(buffer_size=7, momentum=0.9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"preset": "papr", "n_items": 5}, "unknown preset 'papr'; did you mean 'paper'"),
        ({"preset": "paper"}, "the preset 'paper' needs n_items, the number of items in the training set"),
        ({"bufer_size": 5}, "the config's section 'xbm' has no setting 'bufer_size'; did you mean 'buffer_size'"),
        ({"momentum": 1.0}, "momentum must be None or a number of at least 0 and below 1, got 1.0"),
    ],
)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        XbmConfig.from_words(words)
