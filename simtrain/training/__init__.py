"""Models that can be trained: the contract, the assembled model, optimizers and schedules."""

from simtrain.training.amp_optim_wrapper import AmpOptimWrapper
from simtrain.training.attached_evaluator import AttachedEvaluator
from simtrain.training.attached_metric import AttachedMetric
from simtrain.training.base_model import BaseModel
from simtrain.training.build import build_model
from simtrain.training.checkpoint_weights import load_weights, read_weights
from simtrain.training.data_preprocessor import (
    BaseDataPreprocessor,
    ComposedDataPreprocessor,
    NamedFieldsPreprocessor,
)
from simtrain.training.image_preprocessor import ImageDataPreprocessor
from simtrain.training.initialization import initialize
from simtrain.training.loss_parts import parse_losses
from simtrain.training.mixup_preprocessor import MixUpDataPreprocessor
from simtrain.training.optim_wrapper import OptimWrapper
from simtrain.training.stages import TrainStage
from simtrain.training.trainable_model import TrainableModel

__all__ = [
    "AmpOptimWrapper",
    "AttachedEvaluator",
    "AttachedMetric",
    "BaseDataPreprocessor",
    "BaseModel",
    "ComposedDataPreprocessor",
    "ImageDataPreprocessor",
    "MixUpDataPreprocessor",
    "NamedFieldsPreprocessor",
    "OptimWrapper",
    "TrainStage",
    "TrainableModel",
    "build_model",
    "initialize",
    "load_weights",
    "parse_losses",
    "read_weights",
]
