"""simtrain: fine-tune similarity-search models.

The public names are imported when they are first used (PEP 562), so that ``import simtrain`` loads neither
torch nor lightning and a serving process pays only for what it uses.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simtrain import registry
    from simtrain.cache import CacheConfig, CacheType
    from simtrain.config import load_cfg
    from simtrain.evaluation import Evaluator, evaluate
    from simtrain.models import SimilarityModel
    from simtrain.runner import BaseCallBack, Runner, fit
    from simtrain.training import AttachedMetric, BaseModel, TrainableModel, TrainStage
    from simtrain.xbm import XbmConfig

__version__ = "0.1.0"

__all__ = [
    "AttachedMetric",
    "BaseCallBack",
    "BaseModel",
    "CacheConfig",
    "CacheType",
    "Evaluator",
    "Runner",
    "SimilarityModel",
    "TrainStage",
    "TrainableModel",
    "XbmConfig",
    "evaluate",
    "fit",
    "load_cfg",
    "registry",
]

_ROOMS = {
    "AttachedMetric": "simtrain.training",
    "BaseCallBack": "simtrain.runner",
    "BaseModel": "simtrain.training",
    "CacheConfig": "simtrain.cache",
    "CacheType": "simtrain.cache",
    "Evaluator": "simtrain.evaluation",
    "Runner": "simtrain.runner",
    "SimilarityModel": "simtrain.models",
    "TrainStage": "simtrain.training",
    "TrainableModel": "simtrain.training",
    "XbmConfig": "simtrain.xbm",
    "evaluate": "simtrain.evaluation",
    "fit": "simtrain.runner",
    "load_cfg": "simtrain.config",
}


def __getattr__(name: str) -> Any:
    if name == "registry":
        return importlib.import_module("simtrain.registry")
    if name not in _ROOMS:
        raise AttributeError(f"module 'simtrain' has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
