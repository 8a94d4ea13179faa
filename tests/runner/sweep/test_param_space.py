import pytest

from simtrain.errors import ConfigError
from simtrain.runner.sweep.param_space import ParamSpace

RATE = {"type": "loguniform", "low": 1e-4, "high": 0.1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (3, "param_space.x should be {type: choice, values: [...]} or the like, got 3"),
        ({"type": "logunifrm"}, "unknown type 'logunifrm', did you mean 'loguniform'"),
        ({**RATE, "hihg": 1}, "param_space.x has no setting 'hihg'; did you mean 'high'"),
        ({"type": "uniform", "low": 1}, "param_space.x of the type 'uniform' lacks 'high'"),
        ({**RATE, "low": "a"}, "param_space.x.low should be a number, got 'a'"),
        ({**RATE, "low": 0}, "param_space.x.low should be above 0 for loguniform, got 0"),
        ({**RATE, "low": 1}, "param_space.x.low should be below high, got 1 and 0.1"),
        ({"type": "randint", "low": 1, "high": 2.5}, "param_space.x.high should be an integer, got 2.5"),
        ({"type": "choice", "values": []}, "param_space.x.values should be a list of one value or more, got []"),
        ({"type": "choice", "values": "ab"}, "param_space.x.values should be a list of one value or more, got 'ab'"),
    ],
)
def test_a_wrong_entry_is_told_in_one_sentence(words, message):
    with pytest.raises(ConfigError) as error:
        ParamSpace.from_words({"x": words})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_keys_may_be_dotted_or_nested():
    nested = ParamSpace.from_words({"optimizer": {"lr": RATE}, "loss.margin": {"type": "choice", "values": [1]}})
    assert [param.key for param in nested.params] == ["optimizer.lr", "loss.margin"]


def test_corners_name_each_value_once():
    space = ParamSpace.from_words(
        {"a": {"type": "choice", "values": [1, 2, 3]}, "b": {"type": "uniform", "low": 0, "high": 1}}
    )
    assert list(space.corners()) == [{"a": 1, "b": 0}, {"a": 2, "b": 0}, {"a": 3, "b": 0}, {"a": 1, "b": 1}]
