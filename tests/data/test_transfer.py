from collections import UserDict, UserList, UserString, deque, namedtuple
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from simtrain.data.transfer import move_to

Point = namedtuple("Point", ["x", "y"])


class Path(Point):
    def length(self):
        return 2


@dataclass
class Boxes:
    corners: Any
    labels: Any = None
    area: Any = field(init=False)
    kind: ClassVar[str] = "boxes"

    def __post_init__(self):
        if self.corners is not None:
            self.area = self.corners.new_ones(2)


@dataclass(frozen=True)
class Frozen:
    value: Any
    twice: Any = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "twice", self.value * 2)


@dataclass(frozen=True, slots=True)
class Slotted:
    value: Any
    name: str = "a"


def test_any_nesting_is_moved_and_keeps_its_types():
    data = {"a": [torch.ones(1), "text"], "b": Point(torch.zeros(2), (torch.ones(1), None))}
    moved = move_to(data, "meta")
    assert moved["a"][0].device.type == "meta"
    assert moved["a"][1] == "text"
    assert type(moved["b"]) is Point
    assert moved["b"].x.device.type == "meta"
    assert moved["b"].y[1] is None
    assert data["a"][0].device.type == "cpu", "the given batch stays as it is"


def test_dataclasses_keep_their_type_and_every_field():
    boxes = Boxes(torch.ones(4), labels=[torch.zeros(1), "cat"])
    moved = move_to([boxes], "meta")[0]
    assert type(moved) is Boxes
    assert [moved.corners.device.type, moved.area.device.type, moved.labels[0].device.type] == ["meta"] * 3
    assert moved.labels[1] == "cat"
    assert boxes.corners.device.type == boxes.area.device.type == "cpu", "the given batch stays as it is"


def test_a_field_without_a_value_stays_without_one():
    moved = move_to(Boxes(None, labels=torch.ones(1)), "meta")
    assert moved.labels.device.type == "meta"
    assert not hasattr(moved, "area")


@pytest.mark.parametrize("kind", [Frozen, Slotted])
def test_frozen_dataclasses_are_copied_without_their_constructor(kind):
    given = kind(torch.ones(2))
    moved = move_to(given, "meta")
    assert type(moved) is kind
    assert moved.value.device.type == "meta"
    assert given.value.device.type == "cpu"
    if kind is Frozen:
        assert moved.twice.device.type == "meta"


def test_a_dataclass_itself_is_kept():
    assert move_to(Boxes, "meta") is Boxes


@pytest.mark.parametrize("kind", [list, tuple, UserList, deque])
def test_sequences_keep_their_type(kind):
    moved = move_to(kind([torch.ones(1), 3]), "meta")
    assert type(moved) is kind
    assert moved[0].device.type == "meta"
    assert moved[1] == 3


def test_a_named_tuple_of_a_subclass_keeps_its_type():
    moved = move_to(Path(torch.ones(1), "b"), "meta")
    assert type(moved) is Path
    assert moved.length() == 2
    assert moved.x.device.type == "meta"


def test_what_torch_returns_keeps_its_type():
    extremes = torch.ones(2, 3).max(dim=1)
    moved = move_to(extremes, "meta")
    assert type(moved) is type(extremes)
    assert moved.values.device.type == moved.indices.device.type == "meta"


def test_a_packed_sequence_keeps_its_lengths_on_the_cpu():
    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    moved = move_to({"text": packed}, "meta")["text"]
    assert type(moved) is type(packed)
    assert moved.data.device.type == "meta"
    assert moved.batch_sizes.device.type == "cpu"


def test_any_mapping_becomes_a_dict():
    moved = move_to(UserDict(x=torch.ones(1)), "meta")
    assert type(moved) is dict
    assert moved["x"].device.type == "meta"


@pytest.mark.parametrize(
    "data", ["text", UserString("text"), b"bytes", bytearray(b"bytes"), range(3), torch.Size([2]), None, 1.5, {1, 2}]
)
def test_what_holds_no_tensor_is_kept(data):
    assert move_to(data, "meta") is data


def test_non_blocking_reaches_every_tensor():
    class Recorded(torch.Tensor):
        def to(self, device, non_blocking=False):
            seen.append(non_blocking)
            return self

    def recorded():
        return torch.ones(1).as_subclass(Recorded)

    for wish in (True, False):
        seen = []
        move_to({"a": [recorded()], "b": Point(recorded(), 0), "c": Slotted(recorded())}, "cpu", wish)
        assert seen == [wish] * 3
