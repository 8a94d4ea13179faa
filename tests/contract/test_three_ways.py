"""One class runs alone, under a stock trainer and under the runner, with the same numbers."""

import pytest
import torch
from torch.utils.data import DataLoader

from simtrain import Runner
from tests.contract.seed_models import MMResNet50, ToyModel, image_batches, toy_batches

CASES = [(ToyModel, toy_batches), (MMResNet50, image_batches)]


def made(kind):
    torch.manual_seed(3)
    model = kind()
    model.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    return model


@pytest.mark.contract("000-1", "000-18", "001-2")
@pytest.mark.parametrize(("kind", "batches"), CASES)
@pytest.mark.parametrize("n_valid", [1, 2])
def test_000_1_the_three_ways_end_with_the_same_weights(trainer, kind, batches, n_valid):
    # Alone, in plain PyTorch.
    alone, data = made(kind), batches(3)
    optimizer = alone.make_optimizer(alone.parameters())
    for _ in range(2):
        for batch in data:
            loss = alone.train_step(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    # Under a stock trainer, with one or two loaders for validation and test.
    loader = DataLoader(data, batch_size=None)
    more = [loader] * n_valid if n_valid > 1 else loader
    stock, fitted = made(kind), trainer(max_epochs=2)
    fitted.fit(stock, loader, more)
    validated, tested = trainer().validate(stock, more, verbose=False), trainer().test(stock, more, verbose=False)
    # Under the runner.
    run = made(kind)
    runner = Runner(run, 2, loader, loader, loader)
    assert runner.fit() is run
    for model in (stock, run):
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, msg=name)
    assert "train_loss" in fitted.callback_metrics
    if kind is ToyModel:
        ends = [""] if n_valid == 1 else ["/dataloader_idx_0", "/dataloader_idx_1"]
        for number, end in enumerate(ends):
            assert set(validated[number]) == {f"validation_loss{end}"}
            assert set(tested[number]) == {f"test_loss{end}"}
        assert runner.valid()["validation_loss"] == pytest.approx(runner.test()["test_loss"])


@pytest.mark.contract("ruling-1")
@pytest.mark.parametrize("accumulated", [1, 2, 3, 5])
def test_ruling_1_the_last_window_of_accumulation_counts_its_own_batches(trainer, accumulated):
    data = toy_batches(4)
    model, twin = made(ToyModel), made(ToyModel)
    trainer(max_epochs=2, accumulate_grad_batches=accumulated).fit(model, DataLoader(data, batch_size=None))
    optimizer = twin.make_optimizer(twin.parameters())
    for _ in range(2):
        for start in range(0, len(data), accumulated):
            window = data[start : start + accumulated]
            optimizer.zero_grad()
            torch.stack([twin.train_step(batch)["loss"] for batch in window]).mean().backward()
            optimizer.step()
    torch.testing.assert_close(model.linear.weight, twin.linear.weight)


@pytest.mark.contract("000-5")
@pytest.mark.parametrize(
    "form", ["(self, batch)", "(self, batch, k=5)", "(self, batch, batch_idx)", "(self, batch, *args, **kwargs)",
             "(self, batch, batch_idx, dataloader_idx=0)", "(self, batch, *, k=5)", "(self, batch, **kwargs)"]
)  # fmt: skip
@pytest.mark.parametrize("n_loaders", [1, 2])
def test_000_5_a_test_step_of_any_form_runs_with_one_and_two_loaders(trainer, form, n_loaders):
    space = {}
    # A second argument must not be filled with the number of the batch.
    exec(f"def test_step{form}:\n    assert locals().get('k', 5) == 5\n    return self.compute_loss(**batch)", space)
    model = type("Formed", (ToyModel,), {"test_step": space["test_step"]})()
    loader = DataLoader(toy_batches(3), batch_size=None)
    tested = trainer().test(model, [loader] * n_loaders, verbose=False)
    assert len(tested) == n_loaders
    assert "loss" in model.test_step(toy_batches(1)[0], **({"batch_idx": 0} if "batch_idx" in form else {}))


@pytest.mark.contract("000-5")
def test_000_5_super_and_direct_calls_of_a_test_step_are_left_alone(trainer):
    class First(ToyModel):
        def test_step(self, batch, factor=1.0):
            return {"loss": factor * self.compute_loss(**batch)["loss"]}

    class Second(First):
        def test_step(self, batch):
            return super().test_step(batch, 10.0)

    batch = toy_batches(1)[0]
    model = Second()
    plain = model.compute_loss(**batch)["loss"].item()
    assert model.test_step(batch)["loss"].item() == pytest.approx(10 * plain)
    tested = trainer().test(model, DataLoader([batch], batch_size=None), verbose=False)[0]
    assert tested["test_loss"] == pytest.approx(10 * plain)
    assert First.test_step(model, batch, factor=2.0)["loss"].item() == pytest.approx(2 * plain)
