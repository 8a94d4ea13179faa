"""When a class of models is complete, and what its missing steps are made of."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Callable
from functools import wraps
from typing import Any

from simtrain.errors import ContractError
from simtrain.training.step_contract import takes_mode
from simtrain.training.trainer_steps import for_trainer

STEPS = ("train_step", "valid_step", "test_step", "compute_loss")


class ContractMeta(ABCMeta):
    """Class of the models: says what an abstract one lacks, and initialises weights once all layers are made."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor, which ``__call__`` would hide from ``help()`` and from configs."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Build a model, unless its class is abstract."""
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise ContractError(
                f"{cls.__name__} cannot be built yet: give it a forward with a parameter 'mode', or all of "
                f"{', '.join(STEPS)}; missing: {', '.join(missing)}"
            )
        model = super().__call__(*args, **kwargs)
        if "init_cfg" not in vars(model):
            raise ContractError(f"{cls.__name__}.__init__ has to call super().__init__() before anything else")
        # Once the constructor has made all layers; weights that are loaded later win.
        if model.init_cfg is not None:
            model.init_weights()
        return model


def complete(cls: type[Any]) -> None:
    """Give a class its other name of the validation step, the default steps where ``forward`` has a mode, and a
    ``test_step`` that a trainer can call; whatever base class or mixin they come from.
    """  # noqa: D205 - one sentence
    _name_twice(cls, "valid_step", "val_step")
    if takes_mode(cls.forward):
        for name in STEPS:
            if _is_abstract(getattr(cls, name)):
                setattr(cls, name, _concrete(getattr(cls, name)))
        _name_twice(cls, "valid_step", "val_step")
    if not _is_abstract(cls.test_step) and not hasattr(cls.test_step, "for_trainer"):
        cls.test_step = for_trainer(cls.test_step)


def _name_twice(cls: type[Any], name: str, alias: str) -> None:
    # The nearest class that has one of the names decides for both.
    for owner in cls.__mro__:
        found = vars(owner)
        if name in found and alias in found:
            return
        if name in found or alias in found:
            step = found.get(name, found.get(alias))
            setattr(cls, name, step)
            setattr(cls, alias, step)
            return


def _is_abstract(method: Any) -> bool:
    return bool(getattr(method, "__isabstractmethod__", False))


def _concrete(method: Callable[..., Any]) -> Callable[..., Any]:
    # A copy that is not marked abstract: without `updated` the mark stays behind.
    @wraps(method, updated=())
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs)

    return step
