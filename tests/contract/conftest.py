"""What the contract's tests share: quiet trainers."""

from __future__ import annotations

import lightning
import pytest

# Lightning's advice, which is right for large runs only.
ADVICE = ("does not have many workers", "have no `val_dataloader`", "number of training batches", "returned `None`")


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/contract" in item.nodeid:
            for words in ADVICE:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:.*{words}.*"))


@pytest.fixture
def trainer():
    def make(**options):
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        return lightning.Trainer(accelerator="cpu", enable_model_summary=False, **{**quiet, **options})

    return make
