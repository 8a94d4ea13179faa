"""Models that can be trained: the contract, the assembled model, optimizers and schedules."""

from simtrain.training.attached_metric import AttachedMetric
from simtrain.training.base_model import BaseModel
from simtrain.training.build import build_model
from simtrain.training.stages import TrainStage
from simtrain.training.trainable_model import TrainableModel

__all__ = ["AttachedMetric", "BaseModel", "TrainStage", "TrainableModel", "build_model"]
