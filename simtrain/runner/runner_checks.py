"""What a runner refuses when it is made, before a file is read or a batch computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch.utils.data import DataLoader

from simtrain.data import check_groups
from simtrain.errors import ConfigError, ContractError, DataError
from simtrain.losses import SimilarityLoss
from simtrain.training import BaseModel
from simtrain.training.loss_parameters import check_training_groups


def check_model(model: Any) -> None:
    """Raise a :class:`ContractError` where it is no model of the contract."""
    if not isinstance(model, BaseModel):
        raise ContractError(
            f"a Runner takes a BaseModel, or a TrainableModel, which is one; got {type(model).__name__} (to "
            f"compile a model, call model.compile())"
        )


def check_epochs(epochs: Any) -> None:
    """Raise a :class:`ConfigError` where it is no number of epochs."""
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise ConfigError(f"epochs should be a positive integer, got {epochs!r}")


def check_loop(word: str, kind: str, loop: Any) -> None:
    """Raise a :class:`ConfigError` where a loop has no method ``run``; a class of loops is not one yet."""
    if isinstance(loop, type) or not callable(getattr(loop, "run", None)):
        named = loop.__name__ if isinstance(loop, type) else type(loop).__name__
        raise ConfigError(f"{word} should be an object with a method run(), such as a {kind}, got {named}")


def check_loaders(loaders: Mapping[str, Any]) -> None:
    """Raise where a loader is none (:class:`ConfigError`), or gives no batch (:class:`DataError`)."""
    for stage, loader in loaders.items():
        if loader is not None and not isinstance(loader, DataLoader):
            raise ConfigError(f"{stage}_data_loader should be a DataLoader, got {type(loader).__name__}")
        if loader is not None:
            _check_batches(stage, loader)


def check_labels(model: BaseModel, loader: DataLoader[Any] | None) -> None:
    """Raise a :class:`DataError` where the labels of a group loss's training data teach nothing, or do not fit it."""
    loss = getattr(model, "loss", None)
    if loader is None or "groups" not in getattr(loss, "target_names", ()):
        return
    if hasattr(loader.dataset, "groups"):
        check_groups(loader.dataset)
    check_training_groups(cast("SimilarityLoss", loss), loader)


def _check_batches(stage: str, loader: DataLoader[Any]) -> None:
    try:
        n_batches = len(loader)
    except TypeError:
        return  # a stream, whose length shows when it is read
    if n_batches == 0:
        raise DataError(
            f"the {stage} loader gives no batch: {len(cast('Any', loader.dataset))} samples, batch size "
            f"{loader.batch_size}, drop_last={loader.drop_last}; make the batch smaller or keep the last one"
        )
