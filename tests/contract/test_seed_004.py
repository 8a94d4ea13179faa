"""The flow of data through preprocessor, model and evaluator: numbers 004-1 to 004-7."""

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from simtrain import BaseModel, Runner
from simtrain.errors import ContractError, DataError
from simtrain.training import (
    BaseDataPreprocessor,
    ComposedDataPreprocessor,
    ImageDataPreprocessor,
    MixUpDataPreprocessor,
    NamedFieldsPreprocessor,
    OptimWrapper,
)
from tests.contract.seed_models import MMResNet50, MMResNet50Spelled, image_batches, toy_batches


class Counting(nn.Module):
    """An evaluator as the loop knows it: process each batch, evaluate once."""

    def __init__(self):
        super().__init__()
        self.right, self.calls = 0, []

    def process(self, data_samples, data_batch):
        predicted, labels = data_samples
        self.right += int((predicted.argmax(1) == labels).sum())

    def evaluate(self, size):
        self.calls.append(size)
        return {"accuracy": self.right / size}


@pytest.mark.contract("004-1")
def test_004_1_the_printed_loop_runs_with_the_models_own_parts():
    model = MMResNet50()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    train = image_batches(1, rows=8) * 40
    for data_batch in train:
        data_batch = model.data_preprocessor(data_batch, training=True)
        losses = model(*data_batch, mode="loss")
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        optimizer.step()
    evaluator, model = Counting(), model.eval()
    for data_batch in train[:2]:
        outputs = model(*model.data_preprocessor(data_batch, training=False), mode="predict")
        evaluator.process(data_samples=outputs, data_batch=data_batch)
    assert evaluator.evaluate(16)["accuracy"] > 0.7


@pytest.mark.contract("004-1")
def test_004_1_the_steps_hide_the_loop():
    model, evaluator = MMResNet50(), Counting()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5))
    for data_batch in image_batches(1, rows=8) * 40:
        model.train_step(data_batch, optim_wrapper=wrapper)
    model.eval()
    for data_batch in image_batches(1, rows=8):
        evaluator.process(data_samples=model.test_step(data_batch), data_batch=data_batch)
    assert evaluator.evaluate(8)["accuracy"] > 0.7


class TwoSteps(BaseModel):
    """Updates twice a batch, and says so."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(10, 1)
        self.updates = 0

    def forward(self, x, y, mode="tensor"):
        error = self.linear(x) - y
        return {"loss": error.square()} if mode == "loss" else [error]

    def train_step(self, data, optim_wrapper):
        for _ in range(2):
            loss, logged = self.parse_losses(self(**self.data_preprocessor(data, True), mode="loss"))
            optim_wrapper.update_params(loss)
            self.updates += 1
        return logged


@pytest.mark.contract("004-2", "ruling-1")
@pytest.mark.parametrize("under", ["trainer", "runner"])
def test_004_2_an_overridden_train_step_updates_as_it_likes_and_the_loop_does_not(trainer, under):
    torch.manual_seed(0)
    model, twin = TwoSteps(), TwoSteps()
    twin.load_state_dict(model.state_dict())
    model.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.05)
    loader = DataLoader(toy_batches(3), batch_size=None)
    if under == "trainer":
        trainer(max_epochs=2).fit(model, loader)
    else:
        Runner(model, 2, loader).fit()
    wrapper = OptimWrapper(torch.optim.SGD(twin.parameters(), lr=0.05))
    for batch in toy_batches(3) * 2:
        twin.train_step(batch, wrapper)
    assert model.updates == twin.updates == 12
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.contract("004-2")
def test_004_2_the_printed_steps_run_under_trainer_and_runner(trainer):
    loader = DataLoader(image_batches(2), batch_size=None)
    model = MMResNet50Spelled()
    before = model.resnet.fc.weight.clone()
    fitted = trainer(max_epochs=1)
    fitted.fit(model, loader, loader)
    assert not torch.equal(model.resnet.fc.weight, before)
    assert "train_loss" in fitted.callback_metrics
    assert Runner(model, 1, loader, loader, loader).fit() is model
    assert Runner(model, 1, test_data_loader=loader).test() == {}


@pytest.mark.contract("004-2")
def test_004_2_accumulation_and_clipping_of_the_config_reach_an_overridden_train_step():
    class Halved(TwoSteps):
        def train_step(self, data, optim_wrapper):
            loss, logged = self.parse_losses(self(**data, mode="loss"))
            optim_wrapper.update_params(loss)
            return {**logged, "updated": float(optim_wrapper.n_updates)}

    torch.manual_seed(0)
    model, twin = Halved(), Halved()
    twin.load_state_dict(model.state_dict())
    cfg = {
        "optimizer": {"type": "SGD", "lr": 0.05},
        "training": {"gradient_accumulation": 3, "grad_clip": 0.5},
    }
    Runner(model, 2, DataLoader(toy_batches(4), batch_size=None), cfg=cfg).fit()
    wrapper = OptimWrapper(torch.optim.SGD(twin.parameters(), lr=0.05), 3, {"max_norm": 0.5})
    for _ in range(2):
        wrapper.initialize_count_status(twin, 0, 4)
        for batch in toy_batches(4):
            twin.train_step(batch, wrapper)
    assert wrapper.n_updates == 4
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)


@pytest.mark.contract("004-3", "004-7")
def test_004_3_a_preprocessor_turns_tuples_into_named_fields():
    class Named(BaseModel):
        def __init__(self, **words):
            super().__init__(**words)
            self.linear = nn.Linear(3, 2)

        def forward(self, image, label, mode="tensor"):
            out = self.linear(image)
            return {"loss": nn.functional.cross_entropy(out, label)} if mode == "loss" else [out]

    images, labels = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    model = Named(data_preprocessor={"type": "NamedFieldsPreprocessor", "fields": ["image", "label"]})
    assert torch.equal(
        model.train_step((images, labels))["loss"], model.train_step({"label": labels, "image": images})["loss"]
    )
    with pytest.raises(DataError, match="image"):
        model.train_step((images,))


@pytest.mark.contract("004-4")
def test_004_4_three_modes_give_three_kinds_of_result():
    model = TwoSteps()
    batch = toy_batches(1)[0]
    assert isinstance(model(**batch, mode="loss"), dict)
    assert isinstance(model(**batch, mode="predict"), list)


@pytest.mark.contract("004-5")
def test_004_5_the_order_of_an_update(trainer):
    calls = []

    class Noting(BaseModel):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(10, 1)

        def forward(self, x, y, mode="tensor"):
            calls.append(f"forward {mode}")
            return {"loss": (self.linear(x) - y).square()}

        def parse_losses(self, losses):
            calls.append("parse_losses")
            return super().parse_losses(losses)

    class NotingWrapper(OptimWrapper):
        def backward(self, loss):
            calls.append("backward")
            super().backward(loss)

        def step(self, **kwargs):
            calls.append("step")
            super().step(**kwargs)

        def zero_grad(self, **kwargs):
            calls.append("zero_grad")
            super().zero_grad(**kwargs)

    model = Noting()
    model.train_step(toy_batches(1)[0], NotingWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert calls == ["forward loss", "parse_losses", "backward", "step", "zero_grad"]


@pytest.mark.contract("004-6")
def test_004_6_without_a_preprocessor_data_goes_to_the_models_device():
    model = MMResNet50().to("meta")
    images, labels = image_batches(1)[0]
    moved = model.data_preprocessor((images, {"labels": [labels, "a text"]}))
    assert moved[0].device.type == "meta"
    assert moved[1]["labels"][0].device.type == "meta"
    assert moved[1]["labels"][1] == "a text"


@pytest.mark.contract("004-7")
def test_004_7_images_are_moved_before_they_are_normalised():
    class Watched(ImageDataPreprocessor):
        moved = None

        def cast_data(self, data):
            self.moved = dict(super().cast_data(data))
            return dict(self.moved)

    preprocessor = Watched(mean=[10.0], std=[2.0])
    images = torch.randint(0, 255, (2, 3, 4, 4), dtype=torch.uint8)
    out = preprocessor({"inputs": images}, training=True)
    assert preprocessor.moved["inputs"].dtype == torch.uint8
    assert torch.equal(out["inputs"], (images.float() - 10) / 2)


@pytest.mark.contract("004-7")
def test_004_7_batches_are_augmented_in_training_only_and_preprocessors_compose():
    model = MMResNet50()
    model.data_preprocessor = ComposedDataPreprocessor(
        [NamedFieldsPreprocessor(["inputs", "data_samples"]), MixUpDataPreprocessor(num_classes=10, alpha=1.0)]
    )
    images, labels = image_batches(1)[0]
    plain = model.data_preprocessor((images, labels), training=False)
    mixed = model.data_preprocessor((images, labels), training=True)
    assert torch.equal(plain["inputs"], images)
    assert torch.equal(plain["data_samples"], labels)
    assert mixed["data_samples"].shape == (4, 10)
    torch.testing.assert_close(mixed["data_samples"].sum(1), torch.ones(4))
    assert isinstance(model.data_preprocessor, nn.Module)


@pytest.mark.contract("004-2")
def test_004_2_a_step_that_needs_more_than_a_loop_gives_is_told_so(trainer):
    class Needy(TwoSteps):
        def train_step(self, data, teacher):
            return {}

    with pytest.raises(ContractError, match=r"Needy.train_step asks for 'teacher', which no loop gives"):
        trainer(max_epochs=1).fit(Needy(), DataLoader(toy_batches(1), batch_size=None))


@pytest.mark.contract("004-6")
def test_004_6_lightning_moves_nested_batches_with_the_same_rules():
    moved = MMResNet50().transfer_batch_to_device({"a": [torch.ones(1), "text"]}, torch.device("meta"), 0)
    assert moved["a"][0].device.type == "meta"
    assert moved["a"][1] == "text"
    assert issubclass(BaseModel, lightning.LightningModule)
    assert isinstance(BaseDataPreprocessor(), nn.Module)
