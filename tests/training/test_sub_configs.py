"""Models built from configs with models in them, and their typos."""

import pytest
import torch
from torch import nn

from simtrain.errors import ConfigError
from tests.contract.seed_models import ToyModel
from tests.training.trained_toys import Inner

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
]


class Outer(ToyModel):
    def __init__(self, part=None, parts: dict[str, nn.Module] | None = None, plain: dict | None = None, **more):
        super().__init__()
        self.part, self.named, self.plain, self.more = part, parts, plain, more


class Forwarding(Inner):
    def __init__(self, **words):
        super().__init__(**words)


@pytest.fixture
def registered():
    from simtrain import registry

    registry.models.register_module("InnerOfTest")(Inner)


@pytest.mark.usefixtures("registered")
def test_sub_configs_of_every_kind_are_built(tmp_path):
    from argparse import Namespace

    torch.save({"layer.weight": torch.full((1, 3), 7.0), "layer.bias": torch.zeros(1)}, tmp_path / "w.pt")
    inner = {"type": "InnerOfTest", "size": 3}
    assert Outer.from_cfg(Namespace(part=Namespace(**inner))).part.layer.in_features == 3
    assert Outer.from_cfg({"part": (inner, [inner])}).part[1][0].layer.in_features == 3
    assert Outer.from_cfg({"parts": {"a": inner}}).named["a"].layer.in_features == 3
    assert Outer.from_cfg({"plain": inner}).plain == inner
    loaded = Outer.from_cfg({"part": {**inner, "pretrained": str(tmp_path / "w.pt")}}).part
    assert loaded.layer.weight.tolist() == [[7.0, 7.0, 7.0]]
    assert Inner.from_cfg({"type": Inner, "size": 4}).layer.in_features == 4


def test_typos_are_found_through_kwargs():
    with pytest.raises(ConfigError, match="Forwarding has no setting 'sizee'; did you mean 'size'"):
        Forwarding.from_cfg({"sizee": 3})
    with pytest.raises(ConfigError, match="names no setting 'init_cgf'"):
        Forwarding.from_cfg({"init_cgf": {"type": "Xavier"}})


def test_incomplete_and_odd_values_are_refused():
    from omegaconf import OmegaConf

    with pytest.raises(ConfigError, match="the model's config is not complete"):
        Inner.from_cfg(OmegaConf.create({"size": "???"}))
    with pytest.raises(ConfigError, match="allow_missing_keys should be true or false, got 'false'"):
        Inner.from_cfg({"allow_missing_keys": "false"})
