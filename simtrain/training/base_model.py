"""The contract of a model that a loop can train: the steps, building and loading."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from simtrain import registry
from simtrain.errors import CheckpointError, ConfigError, ContractError
from simtrain.training.abstractness import ContractMeta, complete
from simtrain.training.checkpoint_weights import load_weights
from simtrain.training.data_preprocessor import BaseDataPreprocessor
from simtrain.training.initialization import initialize
from simtrain.training.loss_parts import parse_losses
from simtrain.training.model_settings import constructed, model_class, settings_of, takes, usable_device
from simtrain.training.model_tools import ModelTools
from simtrain.training.step_contract import given_wrapper
from simtrain.training.trainer_steps import TrainerSteps

M = TypeVar("M", bound=nn.Module)


class BaseModel(ModelTools, TrainerSteps, metaclass=ContractMeta):
    """A model that is trained, validated and tested step by step.

    There are two ways to write one. Either implement :meth:`train_step`, :meth:`valid_step`, :meth:`test_step` and
    :meth:`compute_loss`; or implement ``forward(..., mode)`` alone, which returns a dict of losses for
    ``mode="loss"``, a list of predictions for ``mode="predict"`` and raw tensors for ``mode="tensor"``: the steps then
    come by themselves. ``val_step`` and ``valid_step`` are two names of one method: override either.

    One class runs in three ways. Alone: ``train_step(batch)`` returns a dict whose ``loss`` can be backpropagated.
    Under a stock ``lightning.Trainer``. And under :class:`simtrain.Runner`. A step may name ``batch_idx`` and
    ``dataloader_idx`` to be given them. A ``train_step(data, optim_wrapper)`` that cannot do without an
    ``optim_wrapper`` updates the parameters itself, also under a trainer (it is a list of them where
    ``configure_optimizers`` gives several optimizers); any other leaves that to the loop.

    Args:
        data_preprocessor: Moves and prepares batches for a :meth:`forward` with a mode: a module that is called with
            ``(data, training)``, or the config of a registered one. Default: :class:`BaseDataPreprocessor`, which moves
            every tensor to the model's device. Steps of your own call it themselves.
        init_cfg: How weights are initialised once the model is built; see :func:`~simtrain.training.initialize`.

    Raises:
        ContractError: The class is abstract, or ``data_preprocessor`` is neither a module nor a config.

    Example:
        >>> import torch
        >>> class Line(BaseModel):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.linear = nn.Linear(2, 1)
        ...     def forward(self, x, y, mode):
        ...         error = self.linear(x).squeeze(1) - y
        ...         return {"loss": error.square()} if mode == "loss" else [error]
        >>> model = Line()
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> for _ in range(100):
        ...     loss = model.train_step({"x": torch.eye(2), "y": torch.ones(2)})["loss"]
        ...     optimizer.zero_grad()
        ...     loss.backward()
        ...     optimizer.step()
        >>> bool(loss < 0.01)
        True
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        complete(cls)

    def __init__(
        self,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
        init_cfg: Mapping[str, Any] | list[Any] | None = None,
    ) -> None:
        super().__init__()
        self.data_preprocessor = _preprocessor(data_preprocessor)
        self.init_cfg = init_cfg
        self._prepare_for_trainer()

    # ------------------------------------------------------------------------------------------------- the steps

    @abstractmethod
    def train_step(self, data_batch: Any, *args: Any, optim_wrapper: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Process a training batch.

        The default, for a model whose ``forward`` has a ``mode``: preprocess, ``forward(mode="loss")``,
        :meth:`parse_losses`, and, if there is an ``optim_wrapper``, ``optim_wrapper.update_params(loss)``.

        Args:
            data_batch: What the loader gives.
            *args: The number of the batch, where a loop gives it; an ``optim_wrapper`` may stand here, too.
            optim_wrapper: Updates the parameters if given; else the caller does.
            **kwargs: Room for overriding methods.

        Returns:
            A dict with ``loss``, a scalar with its graph (without graph where an ``optim_wrapper`` has used it), and
            whatever else is to be logged.
        """
        optim_wrapper = given_wrapper(args, optim_wrapper)
        if optim_wrapper is None:
            return self._losses(data_batch)
        with optim_wrapper.optim_context(self):
            losses = self._losses(data_batch)
        return updated(optim_wrapper, losses)

    @abstractmethod
    def valid_step(self, data_batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Process a validation batch: a dict, or a list of predictions, with whatever evaluation needs."""
        return self._run_forward(self.data_preprocessor(data_batch, False), mode="predict")

    def val_step(self, data_batch: Any, *args: Any, **kwargs: Any) -> Any:
        """The other name of :meth:`valid_step`."""
        return self.valid_step(data_batch, *args, **kwargs)

    @abstractmethod
    def test_step(self, data_batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Process a test batch: a dict, or a list of predictions, with whatever evaluation needs."""
        return self._run_forward(self.data_preprocessor(data_batch, False), mode="predict")

    @abstractmethod
    def compute_loss(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Compute a dict with a scalar ``loss``, for use by the steps; by default from ``forward(mode="loss")``."""
        total, logged = self.parse_losses(self(*args, **kwargs, mode="loss"))
        return {**logged, "loss": total}

    def parse_losses(self, losses: Mapping[str, Any]) -> tuple[Tensor, OrderedDict[str, Tensor]]:
        """Total of a dict of losses, and the figures for the log; see :func:`~simtrain.training.parse_losses`."""
        return parse_losses(losses)

    def _losses(self, data_batch: Any) -> dict[str, Any]:
        losses = self._run_forward(self.data_preprocessor(data_batch, True), mode="loss")
        total, logged = self.parse_losses(losses)
        return {**logged, "loss": total}

    def _run_forward(self, data: Any, mode: str) -> Any:
        if isinstance(data, Mapping):
            return self(**data, mode=mode)
        if isinstance(data, (list, tuple)):
            return self(*data, mode=mode)
        raise ContractError(
            f"forward takes the batch as its arguments, so a batch is a dict, a list or a tuple, got "
            f"{type(data).__name__}; let the data set or the data_preprocessor give one"
        )

    # -------------------------------------------------------------------------------------- building and loading

    @classmethod
    def from_cfg(cls: type[M], cfg: Any) -> M:
        """Build a model from a config.

        Args:
            cfg: A dict, an OmegaConf config, a ``Namespace`` or a dataclass. ``type`` names a class of
                ``registry.models``; without it the class itself is built. ``pretrained`` is a file for
                :meth:`load_checkpoint`, in which names may be missing if ``allow_missing_keys`` is true. ``device``
                is where the model goes; without it, it stays where it was built. All other keys are arguments of the
                constructor; those that are configs with a ``type`` themselves are built first.

        Returns:
            The model.

        Raises:
            ConfigError: A name, a key or the device is wrong.
            CheckpointError: The weights are damaged, do not fit, or do not cover the model.

        Example:
            >>> from simtrain import registry
            >>> @registry.models.register_module("DoctestLine")
            ... class Line(BaseModel):
            ...     def __init__(self, size):
            ...         super().__init__()
            ...         self.linear = nn.Linear(size, 1)
            ...     def forward(self, x, mode):
            ...         return {"loss": self.linear(x)} if mode == "loss" else self.linear(x)
            >>> BaseModel.from_cfg({"type": "DoctestLine", "size": 3}).num_parameters
            4
        """
        settings = settings_of(cfg)
        kind = model_class(cls, BaseModel, settings)
        device = usable_device(settings["device"]) if settings.get("device") is not None else None
        allow_missing = settings.get("allow_missing_keys", False)
        if not isinstance(allow_missing, bool):
            raise ConfigError(f"allow_missing_keys should be true or false, got {allow_missing!r}")
        model: M = constructed(kind, settings)
        if settings.get("pretrained") is not None and not takes(kind, "pretrained"):
            _load_all(cast("Any", model), settings["pretrained"], allow_missing)
        return model if device is None else model.to(device)

    def load_checkpoint(self, cached_path: str) -> list[str]:
        """Load weights from a file; see :func:`~simtrain.training.load_weights`.

        Args:
            cached_path: A safetensors file, or a torch file: a state dict, one under ``"model"`` or ``"state_dict"``,
                or a checkpoint of Lightning's. Only tensors and plain containers are read, never code.

        Returns:
            Names of the model that the file lacks; empty for a full match. Names that the model lacks are reported
            in the log.

        Raises:
            CheckpointError: The file is missing or damaged, holds more than weights, fits in no name, or has a tensor
                of another shape. The model is left as it was.
        """
        return load_weights(self, cached_path)

    def init_weights(self) -> None:
        """Initialise the weights as ``init_cfg`` says; called once a model with an ``init_cfg`` is built."""
        if self.init_cfg is not None:
            initialize(self, self.init_cfg)


def updated(optim_wrapper: Any, losses: Mapping[str, Any]) -> dict[str, Any]:
    """Update the parameters by ``losses["loss"]``; give what is to be logged, without graph."""
    optim_wrapper.update_params(losses["loss"])
    logged = {name: value.detach() if isinstance(value, Tensor) else value for name, value in losses.items()}
    norm = getattr(optim_wrapper, "grad_norm", None)
    return logged if norm is None else {**logged, "grad_norm": norm}


def _preprocessor(given: Mapping[str, Any] | nn.Module | None) -> nn.Module:
    if given is None:
        return BaseDataPreprocessor()
    if isinstance(given, nn.Module):
        return given
    if isinstance(given, Mapping):
        module: nn.Module = registry.preprocessors.build(given)
        return module
    raise ContractError(
        f"data_preprocessor should be a module or the config of one, {{'type': NAME, ...}}, got {type(given).__name__}"
    )


def _load_all(model: BaseModel, path: str, allow_missing: bool) -> None:
    missing = model.load_checkpoint(path)
    if missing and not allow_missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} tensors of {type(model).__name__}: {', '.join(missing[:5])}"
            f"{', …' if len(missing) > 5 else ''}; set allow_missing_keys to keep their initial values"
        )
