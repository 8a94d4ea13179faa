"""What a model can do besides training: freezing, counting, drawing, statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import lightning
import torch
from torch import nn

from simtrain.training.architecture import draw_architecture
from simtrain.training.parameter_statistics import parameter_histogram, parameter_outliers
from simtrain.training.parameters import (
    count_parameters,
    freeze_parameters,
    frozen_norm_layers,
    module_device,
    module_dtype,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

M = TypeVar("M", bound=nn.Module)


class ModelTools(lightning.LightningModule):
    """Freezing, counting, drawing and statistics of parameters, as methods of a model."""

    def __init__(self) -> None:
        super().__init__()
        # By name: layers may be exchanged for others of the same place (SyncBatchNorm).
        self._norms_in_eval: list[str] = []

    def freeze_parameters(self: M, freeze: bool = True, regex: str | None = None, norm_eval: bool = False) -> M:
        """Freeze parameters, or let them be trained again.

        Args:
            freeze: Whether the parameters are frozen or unfrozen.
            regex: Which ones: a regular expression that is searched in their names; None for all.
            norm_eval: Keep normalisation layers whose parameters are all frozen in eval mode, so that training does
                not move their statistics either. Unfreezing ends that.

        Returns:
            The model itself.

        Raises:
            ConfigError: The expression is wrong or fits no name.

        Example:
            >>> class Pair(ModelTools):
            ...     def __init__(self):
            ...         super().__init__()
            ...         self.linear, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
            >>> Pair().freeze_parameters(regex="^linear").num_trainable_parameters
            4
        """
        assert isinstance(self, ModelTools)
        freeze_parameters(self, freeze, regex)
        frozen = {id(norm) for norm in frozen_norm_layers(self)}
        names = [name for name, module in self.named_modules() if id(module) in frozen]
        before = set(self._norms_in_eval)
        self._norms_in_eval = names if norm_eval and freeze else [name for name in names if name in before]
        for name in before - set(self._norms_in_eval):
            self.get_submodule(name).train(self.training)
        self._keep_norms_in_eval()
        return self

    def train(self: M, mode: bool = True) -> M:
        """Switch to training or eval mode; normalisation layers that are frozen for good stay in eval mode."""
        assert isinstance(self, ModelTools)
        super().train(mode)
        self._keep_norms_in_eval()
        return self

    def _keep_norms_in_eval(self) -> None:
        for name in self._norms_in_eval:
            self.get_submodule(name).eval()

    @property
    def device(self) -> torch.device:
        """Device of the first parameter; without parameters, the one that the model was moved to."""
        return module_device(self, default=super().device)

    @property  # type: ignore[misc]
    def dtype(self) -> torch.dtype:
        """Number format of the first parameter."""
        return module_dtype(self)

    @property
    def num_parameters(self) -> int:
        """Number of parameters; shared ones count once."""
        return count_parameters(self)

    @property
    def num_trainable_parameters(self) -> int:
        """Number of parameters that are not frozen."""
        return count_parameters(self, trainable_only=True)

    def visualize_architecture(self, input: Mapping[str, Any], save_path: str = "model_graph.png") -> str:
        """Draw the graph of ``model(**input)``; see :func:`~simtrain.training.architecture.draw_architecture`.

        Args:
            input: Arguments of ``forward`` by name.
            save_path: Where to; a name without suffix is a PNG.

        Returns:
            Path of the picture.

        Raises:
            ConfigError: The path, the inputs or the model do not allow a drawing.
            MissingExtraError: The packages of ``simtrain[viz]`` are not installed.
        """
        return draw_architecture(self, input, save_path)

    def plot_parameter_histogram(self, param_name: str, bins: int = 50) -> Figure:
        """Histogram of a parameter's values.

        Args:
            param_name: Its name, such as ``"encoder.layers.0.self_attn.q_proj.weight"``.
            bins: Number of bins.

        Returns:
            A matplotlib figure.

        Raises:
            UnknownNameError: There is no such parameter.
            MissingExtraError: The packages of ``simtrain[report]`` are not installed.
        """
        return parameter_histogram(self, param_name, bins)

    def detect_parameter_outliers(self, sigma: float | int = 3) -> list[dict[str, Any]]:
        """Count, for every parameter, the values further than ``sigma`` standard deviations from its mean.

        Returns:
            For each parameter a dict of ``parameter``, ``total``, ``outliers``, ``ratio``, ``max_val``, ``min_val``.
        """
        return parameter_outliers(self, sigma)
