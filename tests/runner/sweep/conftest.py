"""A small real job, and a sweep over it."""

import json

import pytest
import torch


@pytest.fixture
def job(tmp_path):
    """Vectors in groups: the second of each group is the first under a fixed rotation, which a head can learn."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    for name, n in (("train", 48), ("valid", 24)):
        first = torch.randn(n, 8, generator=generator)
        second = (first @ turn + 0.1 * torch.randn(n, 8, generator=generator)).tolist()
        lines = [{"item": item, "group": row} for row in range(n) for item in (first[row].tolist(), second[row])]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = {stage: str(tmp_path / f"{stage}.jsonl") for stage in ("train", "valid")}
    return {
        "data": {"kind": "groups", **files, "test": files["valid"]},
        "encoders": {"type": "PrecomputedEncoder", "embedding_size": 8},
        "head": {"type": "StackedProjectionHead", "output_sizes": [16]},
        "loss": {"type": "SupConLoss", "temperature": 0.2},
        "cache": {"cache_type": "cpu"},
        "training": {"epochs": 3, "batch_size": 32, "device": "cpu"},
    }


@pytest.fixture
def file(job, tmp_path):
    """A sweep of the job as a mapping."""
    return {
        "config": job,
        "run_dir": str(tmp_path / "sweep"),
        "trials": 3,
        "param_space": {"optimizer.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-1}},
    }
