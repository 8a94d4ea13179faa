from collections import namedtuple

import pytest
import torch
from torch import nn

from simtrain import registry
from simtrain.errors import ConfigError, ContractError, DataError, UnknownNameError
from simtrain.training.data_preprocessor import (
    BaseDataPreprocessor,
    ComposedDataPreprocessor,
    NamedFieldsPreprocessor,
)

Batch = namedtuple("Batch", ["x", "y"])


class Model(nn.Module):
    def __init__(self, preprocessor):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2), preprocessor])


class Add(nn.Module):
    """A user's own step: adds a number in training."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, data, training):
        seen.append((self.number, training))
        return {name: value + self.number if training else value for name, value in data.items()}


seen = []


@pytest.fixture(autouse=True)
def _forget():
    seen.clear()


@pytest.mark.parametrize("move", [lambda model: model.to("meta"), lambda model: model.to(device="meta")])
def test_it_follows_any_module_that_holds_it(move):
    preprocessor = BaseDataPreprocessor()
    assert preprocessor.device.type == "cpu"
    move(Model(Model(preprocessor)))
    assert preprocessor.device.type == "meta"
    assert preprocessor({"x": [torch.ones(1)]})["x"][0].device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("non_blocking", [True, False])
def test_it_follows_to_a_gpu_and_back(non_blocking):
    model = Model(BaseDataPreprocessor(non_blocking)).cuda()
    batch = {"x": torch.arange(3).pin_memory()}
    moved = model.layers[1](batch)["x"]
    assert moved.device.type == "cuda"
    assert moved.tolist() == [0, 1, 2]
    model.cpu()
    assert model.layers[1](batch)["x"].device.type == "cpu"


@pytest.mark.parametrize("cast", ["bfloat16", "half", "double", "float"])
def test_its_dtype_is_that_of_the_model(cast):
    preprocessor = BaseDataPreprocessor()
    assert preprocessor.dtype is torch.float32
    model = getattr(Model(preprocessor), cast)()
    assert preprocessor.dtype is model.layers[0].weight.dtype


def test_moving_changes_no_dtype_and_no_type():
    batch = Batch(torch.ones(2, dtype=torch.uint8), ["a", None])
    moved = Model(BaseDataPreprocessor()).bfloat16().layers[1](batch, training=True)
    assert type(moved) is Batch
    assert moved.x.dtype is torch.uint8
    assert moved.y == ["a", None]


def test_it_leaves_no_trace_in_a_checkpoint():
    names = NamedFieldsPreprocessor(["x"])
    model = Model(ComposedDataPreprocessor([BaseDataPreprocessor(), names]))
    assert set(model.state_dict()) == {"layers.0.weight", "layers.0.bias"}
    assert not list(names.parameters())
    model.load_state_dict(Model(BaseDataPreprocessor()).state_dict())


def test_non_blocking_reaches_the_transfer():
    class Recorded(torch.Tensor):
        def to(self, device, non_blocking=None):
            wishes.append(non_blocking)
            return self

    wishes = []
    for wish in (True, False):
        BaseDataPreprocessor(non_blocking=wish)([torch.ones(1).as_subclass(Recorded)])
    assert wishes == [True, False]


@pytest.mark.parametrize("batch", [(1, "b"), [1, "b"], Batch(1, "b"), {"x": 1, "y": "b"}])
def test_fields_get_their_names(batch):
    assert NamedFieldsPreprocessor(["x", "y"])(batch) == {"x": 1, "y": "b"}


def test_named_fields_are_moved_and_further_fields_of_a_dict_kept():
    preprocessor = NamedFieldsPreprocessor(["x", "y"]).to("meta")
    for batch in ((torch.ones(1), 2), {"x": torch.ones(1), "y": 2, "more": 3}):
        named = preprocessor(batch, training=True)
        assert named["x"].device.type == "meta"
        assert named.get("more", 3) == 3


@pytest.mark.parametrize("batch", [(), (1,), [1, 2, 3]])
def test_a_wrong_number_of_fields_is_an_error_with_both(batch):
    with pytest.raises(DataError, match=rf"the batch has {len(batch)} fields, 2 are named: 'x', 'y'; name every field"):
        NamedFieldsPreprocessor(["x", "y"])(batch)


def test_a_dict_that_lacks_a_field_is_an_error():
    with pytest.raises(DataError, match="the batch has no field 'labels'; did you mean 'label'"):
        NamedFieldsPreprocessor(["inputs", "labels"])({"inputs": 1, "label": 2})


@pytest.mark.parametrize(("batch", "name"), [(torch.ones(2), "Tensor"), ("xy", "str"), (None, "NoneType")])
def test_a_batch_without_fields_is_an_error(batch, name):
    message = f"NamedFieldsPreprocessor takes a batch that is a tuple, a list or a dict, got a {name}"
    with pytest.raises(ContractError, match=message):
        NamedFieldsPreprocessor(["x", "y"])(batch)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "fields should name at least one field, got none"),
        ("inputs", r"fields should be a list of names, such as \['inputs', 'data_samples'\], got 'inputs'"),
        (["x", 1], r"fields should be a list of names, .* got \['x', 1\]"),
        (["x", "x"], r"fields should name every field once, got \['x', 'x'\]"),
    ],
)
def test_wrong_names_are_refused(without_type_checks, fields, message):
    with pytest.raises(ConfigError, match=message):
        NamedFieldsPreprocessor(fields)


@pytest.mark.parametrize("training", [True, False])
def test_a_chain_applies_its_steps_in_order_and_tells_each_the_stage(training):
    names = {"type": "NamedFieldsPreprocessor", "fields": ["x", "y"]}
    chain = ComposedDataPreprocessor([names, Add(1), Add(10)])
    result = chain((torch.zeros(1), torch.ones(1)), training=training)
    assert seen == [(1, training), (10, training)]
    assert (result["x"].item(), result["y"].item()) == ((11, 12) if training else (0, 1))


def test_a_chain_moves_first_even_where_its_steps_do_not():
    moved = ComposedDataPreprocessor([Add(1)]).to("meta")({"x": torch.ones(1)}, training=True)
    assert moved["x"].device.type == "meta"
    assert ComposedDataPreprocessor([]).to("meta")((torch.ones(1),))[0].device.type == "meta"


def test_a_chain_s_steps_are_moved_and_cast_with_it():
    inner = NamedFieldsPreprocessor(["x"])
    nn.Sequential(ComposedDataPreprocessor([ComposedDataPreprocessor([inner])])).to("meta", torch.float16)
    assert (inner.device.type, inner.dtype) == ("meta", torch.float16)


@pytest.mark.parametrize(
    ("preprocessors", "error", "message"),
    [
        ([{"type": "NamedFields", "fields": ["x"]}], UnknownNameError, "unknown data preprocessor type 'NamedFields'"),
        (
            [{"type": "NamedFieldsPreprocessor", "field": ["x"]}],
            ConfigError,
            "no setting 'field'; did you mean 'fields",
        ),
        ([3], ConfigError, "a data preprocessor is given as"),
        ({"type": "BaseDataPreprocessor"}, ConfigError, "a data preprocessor is given as .* got 'type'"),
    ],
)
def test_what_is_no_preprocessor_is_refused(without_type_checks, preprocessors, error, message):
    with pytest.raises(error, match=message):
        ComposedDataPreprocessor(preprocessors)


def test_all_are_known_by_name():
    names = {
        "BaseDataPreprocessor",
        "NamedFieldsPreprocessor",
        "ComposedDataPreprocessor",
        "ImageDataPreprocessor",
        "MixUpDataPreprocessor",
    }
    assert names <= set(registry.preprocessors.names())
    assert type(registry.preprocessors.build({"type": "BaseDataPreprocessor"})) is BaseDataPreprocessor
