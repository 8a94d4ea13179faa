"""One forward with a mode: numbers 001-1 to 001-9."""

from collections import OrderedDict, namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from simtrain import BaseModel, registry
from simtrain.errors import ContractError, DataError
from simtrain.training import BaseDataPreprocessor, OptimWrapper, parse_losses
from tests.contract.seed_models import ImageToyModel, MMResNet50, YourModelClassName, image_batches


class Doubling(BaseDataPreprocessor):
    def forward(self, data, training=False):
        return {name: value * 2 for name, value in super().forward(data).items()}


class Line(BaseModel):
    def __init__(self, **words):
        super().__init__(**words)
        self.linear = nn.Linear(3, 1)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        out = self.linear(inputs).squeeze(1)
        if mode == "loss":
            return {"loss_a": (out - data_samples) ** 2, "loss_b": [out.abs(), out.abs()], "count": out.detach()}
        return [out] if mode == "predict" else out


def batch(rows=4):
    return {"inputs": torch.randn(rows, 3), "data_samples": torch.randn(rows)}


@pytest.mark.contract("001-1")
def test_001_1_the_preprocessor_is_a_default_a_module_or_a_config():
    assert type(Line().data_preprocessor) is BaseDataPreprocessor
    module = Doubling()
    assert Line(data_preprocessor=module).data_preprocessor is module
    built = Line(data_preprocessor={"type": "ImageDataPreprocessor", "mean": [0.5], "std": [0.5]})
    assert type(built.data_preprocessor).__name__ == "ImageDataPreprocessor"
    assert Line().state_dict().keys() == {"linear.weight", "linear.bias"}


@pytest.mark.contract("001-1")
@pytest.mark.usefixtures("without_type_checks")
def test_001_1_anything_else_is_a_type_error():
    with pytest.raises(TypeError, match=r"data_preprocessor should be a module or the config of one.*got int"):
        Line(data_preprocessor=3)


@pytest.mark.contract("001-2", "ruling-3")
def test_001_2_a_forward_with_a_mode_gives_all_steps():
    model = Line()
    data = batch()
    assert model.train_step(data)["loss"].requires_grad
    assert torch.equal(model.valid_step(data)[0], model(data["inputs"]))
    assert torch.equal(model.test_step(data)[0], model.val_step(data)[0])
    losses = model.compute_loss(**data)
    assert list(losses) == ["loss", "loss_a", "loss_b", "count"]
    assert losses["loss"].requires_grad


@pytest.mark.contract("001-3", "ruling-1")
def test_001_3_an_optim_wrapper_updates_and_what_comes_back_is_for_the_log():
    torch.manual_seed(0)
    model, twin = Line(), Line()
    twin.load_state_dict(model.state_dict())
    data = batch()
    logged = model.train_step(data, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert not any(value.requires_grad for value in logged.values())
    loss = twin.train_step(data)["loss"]
    loss.backward()
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert torch.equal(logged["loss"], loss)
    for name, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name])


@pytest.mark.contract("001-3", "ruling-1")
def test_001_3_without_an_optim_wrapper_nothing_is_updated():
    model = Line()
    before = model.linear.weight.clone()
    model.train_step(batch())["loss"].backward()
    assert torch.equal(model.linear.weight, before)


@pytest.mark.contract("001-4")
def test_001_4_validation_preprocesses_without_augmentation():
    class Noting(BaseDataPreprocessor):
        seen = []  # noqa: RUF012

        def forward(self, data, training=False):
            self.seen.append(training)
            return super().forward(data)

    model = Line(data_preprocessor=Noting())
    model.train_step(batch())
    model.val_step(batch())
    model.test_step(batch())
    assert Noting.seen == [True, False, False]


Point = namedtuple("Point", "inputs data_samples")


@pytest.mark.contract("001-5")
def test_001_5_batches_are_unpacked_by_name_or_by_place():
    model, data = Line(), batch()
    values = list(data.values())
    losses = [model.train_step(form)["loss"].item() for form in (data, values, tuple(values), Point(*values))]
    assert len(set(losses)) == 1
    with pytest.raises(TypeError, match="a batch is a dict, a list or a tuple, got Tensor"):
        model.train_step(data["inputs"])


@pytest.mark.contract("001-6")
def test_001_6_parts_are_averaged_added_and_put_after_the_total():
    a, b = torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor(5.0)
    total, logged = Line().parse_losses({"acc": torch.tensor(1), "loss_a": a, "loss_b": [b, b]})
    assert isinstance(logged, OrderedDict)
    assert {name: value.item() for name, value in logged.items()} == {"loss": 12, "acc": 1, "loss_a": 2, "loss_b": 10}
    assert next(iter(logged)) == "loss"
    assert total.requires_grad
    assert not logged["loss"].requires_grad
    total.backward()
    assert a.grad.tolist() == [0.5, 0.5]


@pytest.mark.contract("001-6")
@given(
    parts=st.dictionaries(
        st.text("abl_", max_size=4).map(lambda word: f"loss_{word}x"),
        st.lists(st.floats(-10, 10), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    figures=st.dictionaries(st.sampled_from(["acc", "size", "lossless"]), st.floats(-10, 10)),
)
def test_001_6_the_total_is_the_sum_of_the_means(parts, figures):
    as_tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in parts.items()}
    as_tensors |= {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}
    total, logged = parse_losses(as_tensors)
    assert total.item() == pytest.approx(sum(sum(v) / len(v) for v in parts.values()), abs=1e-9)
    assert list(logged) == ["loss", *as_tensors]
    assert logged["loss"].item() == total.item()


@pytest.mark.contract("001-6", "ruling-2")
@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"acc": torch.tensor(1.0)}, r"no key of the dict of losses contains 'loss', got \['acc'\]"),
        ({}, "no key of the dict of losses contains 'loss'"),
        ({"lossless_ratio": torch.tensor(1.0)}, "no key of the dict of losses contains 'loss'"),
        ({"loss": 1.0}, "the value of 'loss' should be a tensor or a list of tensors, got float"),
        ({"loss": (torch.tensor(1.0),)}, "should be a tensor or a list of tensors, got tuple"),
        ({"loss": [torch.tensor(1.0), 2.0]}, "should be a tensor or a list of tensors, got list"),
        ({"loss": []}, "the value of 'loss' is empty"),
        ({"loss": torch.empty(0)}, "the value of 'loss' is empty"),
        ({"loss": torch.tensor(1.0), "loss_aux": torch.tensor(2.0)}, "'loss' stands beside other parts"),
    ],
)
def test_001_6_what_cannot_be_added_up_is_a_type_error(losses, message):
    with pytest.raises(TypeError, match=message):
        parse_losses(losses)


@pytest.mark.contract("001-6")
@pytest.mark.usefixtures("without_type_checks")
def test_001_6_a_forward_that_gives_no_dict_is_told_so():
    class Wrong(Line):
        def forward(self, inputs, data_samples=None, mode="tensor"):
            return self.linear(inputs).mean()

    with pytest.raises(
        ContractError, match=r"forward\(mode='loss'\) should return a dict of losses by name, got Tensor"
    ):
        Wrong().train_step(batch())


@pytest.mark.contract("001-6")
def test_001_6_a_loss_that_is_not_finite_stops_before_any_weight_changes():
    model = Line()
    before = model.linear.weight.clone()
    data = batch()
    data["data_samples"][1] = float("nan")
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(DataError, match=r"nan.*no weight was changed"):
        model.train_step(data, optim_wrapper=wrapper)
    assert torch.equal(model.linear.weight, before)


@pytest.mark.contract("001-7")
def test_001_7_moving_a_model_moves_its_preprocessors_and_gives_the_model():
    class Outer(Line):
        def __init__(self):
            super().__init__()
            self.inner = Line()

    model = Outer()
    assert model.to("meta") is model
    assert model.data_preprocessor.device == model.inner.data_preprocessor.device == torch.device("meta")
    assert Line().cpu().data_preprocessor.device == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.contract("001-7")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_001_7_a_batch_from_the_cpu_trains_a_model_on_the_gpu():
    model = Line().cuda()
    assert model.data_preprocessor.device.type == "cuda"
    assert model.train_step(batch())["loss"].device.type == "cuda"


@pytest.mark.contract("001-8")
def test_001_8_weights_are_initialised_once_the_model_is_built_and_again_when_asked():
    model = Line(init_cfg={"type": "Constant", "val": 2.0, "bias": 1.0})
    assert model.linear.weight.tolist() == [[2.0, 2.0, 2.0]]
    assert model.linear.bias.tolist() == [1.0]
    nn.init.zeros_(model.linear.weight)
    model.init_weights()
    assert model.linear.weight.tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.contract("001-8")
def test_001_8_loaded_weights_win_over_initialised_ones(tmp_path):
    torch.save(Line().state_dict(), tmp_path / "w.pt")
    model = Line.from_cfg({"init_cfg": {"type": "Constant", "val": 2.0}, "pretrained": str(tmp_path / "w.pt")})
    assert model.linear.weight.tolist() != [[2.0, 2.0, 2.0]]


@pytest.mark.contract("001-8")
def test_001_8_registered_models_are_found_by_name():
    assert registry.models.get("YourModelClassName") is YourModelClassName
    assert type(registry.models.build({"type": "ImageToyModel"})) is ImageToyModel


@pytest.mark.contract("001-2")
def test_001_2_the_printed_examples_give_what_each_mode_promises():
    images, labels = image_batches(1, side=22)[0]
    toy = ImageToyModel()
    assert toy(images, list(labels)).shape == (4, 10)
    assert toy.val_step((images, list(labels))).shape == (4,)
    assert toy.train_step({"batch_inputs": images, "data_samples": list(labels)})["loss"].requires_grad
    resnet = MMResNet50().eval()
    predicted, same = resnet.val_step((images, labels))
    assert torch.equal(predicted, resnet.resnet(images))
    assert torch.equal(same, labels)
