from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from torch import nn

from simtrain.encoders import ModuleEncoder, NgramEncoder
from simtrain.encoders.partial_freezing import last_layers, parse_trainable
from simtrain.errors import ConfigError


@pytest.mark.parametrize("trainable", ["last:0", "last:", "last:-1", "last:two", "first:2", "all", 2, None, "last:²"])
def test_wrong_words_are_refused(trainable: Any) -> None:
    with pytest.raises(ConfigError, match="trainable must be False, True or 'last:N' with N of 1 or more, got"):
        getattr(parse_trainable, "__wrapped__", parse_trainable)(trainable)


def test_last_layers_are_those_of_the_longest_stack() -> None:
    short, long = nn.ModuleList([nn.Linear(1, 1)]), nn.ModuleList([nn.Linear(1, 1) for _ in range(3)])
    model = nn.ModuleDict({"a": long, "b": short})
    assert last_layers(model, 2) == list(long)[1:]
    with pytest.raises(ConfigError, match="asks for more than the model's 3 layers"):
        last_layers(model, 4)


def test_a_module_without_layers_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs a stack of transformer layers, Linear has none"):
        last_layers(nn.Linear(1, 1), 1)


@pytest.mark.parametrize("trainable", ["last:1", "false", 1])
def test_encoders_without_layers_are_trained_as_a_whole_or_not(trainable: Any, without_type_checks: Any) -> None:
    for build in (partial(NgramEncoder, 4, 50), partial(ModuleEncoder, nn.Linear(2, 2), 2)):
        with pytest.raises(ConfigError, match=f"trainable must be False.* got {trainable!r}"):
            build(trainable=trainable)
