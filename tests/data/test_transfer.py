from collections import namedtuple

import torch

from simtrain.data.transfer import move_to

Point = namedtuple("Point", ["x", "y"])


def test_any_nesting_is_moved_and_keeps_its_types():
    data = {"a": [torch.ones(1), "text"], "b": Point(torch.zeros(2), (torch.ones(1), None))}
    moved = move_to(data, "meta")
    assert moved["a"][0].device.type == "meta"
    assert moved["a"][1] == "text"
    assert type(moved["b"]) is Point
    assert moved["b"].x.device.type == "meta"
    assert moved["b"].y[1] is None
    assert data["a"][0].device.type == "cpu", "the given batch stays as it is"
