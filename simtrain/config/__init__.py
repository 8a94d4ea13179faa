"""Config files: a schema of dataclasses, YAML files merged into it, and ``key=value`` overrides on top."""

from simtrain.config.checkpoint_section import CheckpointConfig
from simtrain.config.data_section import DATA_KINDS, DataConfig
from simtrain.config.loading import load_cfg
from simtrain.config.log_section import LogConfig
from simtrain.config.nodes import named_encoders, plain, require
from simtrain.config.schema import Config
from simtrain.config.training_section import TrainingConfig

__all__ = [
    "DATA_KINDS",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "LogConfig",
    "TrainingConfig",
    "load_cfg",
    "named_encoders",
    "plain",
    "require",
]
