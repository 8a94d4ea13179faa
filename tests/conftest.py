"""What every test shares: small models, and a quiet, reproducible torch."""

from __future__ import annotations

import os
import random

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.contract.table import (  # noqa: F401 - hooks
    pytest_runtest_logreport,
    pytest_runtest_makereport,
    pytest_terminal_summary,
)

# What this machine or its job says of runs, ranks and colours is not what the tests are about.
FOREIGN = ("WANDB_", "SLURM_", "SIMTRAIN_", "TORCHELASTIC_", "PL_", "MASTER_")
FOREIGN_NAMES = {"RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "COLUMNS", "LINES"}
FOREIGN_NAMES |= {"FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS"}
for name in [*os.environ]:
    if name.startswith(FOREIGN) or name in FOREIGN_NAMES:
        del os.environ[name]

# Set before any test imports a tokenizer or asks for a model.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Machines differ in speed: a slow example is no failure, and a run is the same every time.
settings.register_profile(
    "simtrain", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("simtrain")


@pytest.fixture
def without_type_checks():
    """Call simtrain as its users do: a wrong type meets simtrain's own error, not beartype's."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
