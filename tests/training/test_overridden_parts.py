"""Mixins, hooks and steps that users override."""

import copy
import pickle

import pytest
import torch
from torch import nn

from simtrain import BaseModel, Runner
from simtrain.errors import ContractError
from simtrain.training.step_contract import call_step
from tests.contract.seed_models import ToyModel
from tests.training.trained_toys import Manual, loader, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
]


class ValMixin:
    def val_step(self, batch):
        return {"from": "mixin"}


class TestMixin:
    __test__ = False

    def test_step(self, batch, k=5):  # noqa: PT028
        assert k == 5
        return {"loss": torch.tensor(float(k))}


def test_steps_of_mixins_count():
    model = type("Mixed", (ValMixin, ToyModel), {})()
    assert model.valid_step(None) == model.val_step(None) == {"from": "mixin"}
    steps = {name: (lambda self, *a: {}) for name in ("train_step", "test_step", "compute_loss")}
    assert type("Whole", (ValMixin, BaseModel), steps)().valid_step(None) == {"from": "mixin"}
    tested = type("Tested", (TestMixin, ToyModel), {})()
    assert trainer().test(tested, [loader(1), loader(1)], verbose=False)[1] == {"test_loss/dataloader_idx_1": 5.0}


def test_a_forgotten_super_is_named():
    class Forgot(BaseModel):
        def __init__(self):
            nn.Module.__init__(self)

        def forward(self, x, mode="tensor"):
            return x

    with pytest.raises(ContractError, match=r"Forgot.__init__ has to call super\(\).__init__\(\)"):
        Forgot()


def test_hooks_may_be_overridden_without_super():
    class Bare(Manual):
        def on_fit_start(self):
            self.started = True

        def on_before_optimizer_step(self, optimizer):
            self.stepped = True

    model, twin = Bare(clip_grad={"max_norm": 0.01}), Manual(clip_grad={"max_norm": 0.01})
    twin.load_state_dict(model.state_dict())
    for each in (model, twin):
        trainer(max_epochs=1).fit(each, loader())
    assert model.started
    assert model.stepped
    assert torch.equal(model.linear.weight, twin.linear.weight)


def test_a_model_can_be_pickled_and_copied_after_training():
    model = Manual()
    model.make_optimizer = None
    Runner(model, 1, loader()).fit()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.linear.weight, model.linear.weight)


def test_a_run_after_one_that_broke_off_uses_its_own_optimizer():
    class Breaking(Manual):
        breaks = True

        def train_step(self, batch, optim_wrapper):
            super().train_step(batch, optim_wrapper)
            if self.breaks:
                raise ValueError("on purpose")
            return {"rate": optim_wrapper.get_lr()["lr"][0]}

    model = Breaking()
    with pytest.raises(ValueError, match="on purpose"):
        trainer(max_epochs=1).fit(model, loader())
    model.breaks, model.make_optimizer = False, lambda parameters: torch.optim.SGD(parameters, lr=0.03)
    again = trainer(max_epochs=1)
    again.fit(model, loader())
    assert float(again.callback_metrics["train_rate"]) == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda *args, **kwargs: (args, kwargs), (("batch",), {})),
        (lambda batch, batch_idx, /: batch_idx, 3),
        (lambda batch, batch_idx, dataloader_idx, /: (batch_idx, dataloader_idx), (3, 1)),
    ],
)
def test_wrapped_and_positional_steps_get_what_they_take(step, expected):
    assert call_step(step, "batch", batch_idx=3, dataloader_idx=1) == expected


def test_frozen_norms_stay_in_eval_mode_when_their_layer_is_exchanged():
    class Normed(ToyModel):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

    model = Normed().freeze_parameters(regex="^norm", norm_eval=True)
    model.norm = nn.SyncBatchNorm(4).requires_grad_(False)
    assert not model.train().norm.training
