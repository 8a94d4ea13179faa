"""A process leaves its group when it ends, unless it broke off; see tests/distributed/train_runner.py, too."""

import sys

import pytest
import torch.distributed as dist

from simtrain.runner import process_group_end


@pytest.fixture
def group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_process_that_ends_well_leaves_its_group_once(group, monkeypatch):
    monkeypatch.delattr(sys, "last_value", raising=False)
    process_group_end._leave_group()
    assert not dist.is_initialized()
    process_group_end._leave_group()


def test_a_process_that_broke_off_does_not_wait_for_the_others(group, monkeypatch):
    monkeypatch.setattr(sys, "last_value", RuntimeError("broke off"), raising=False)
    process_group_end._leave_group()
    assert dist.is_initialized()


def test_without_a_group_nothing_is_to_be_done_at_the_end(monkeypatch):
    monkeypatch.setattr(process_group_end.atexit, "register", lambda *_: pytest.fail("there is no group"))
    process_group_end.leaves_group_at_exit()
