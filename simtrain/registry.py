"""Names → classes, so that config files can say ``{type: TripletLoss, margin: 0.2}``.

A registry holds classes only, never the state of a run. Built-in classes are registered by their own
modules; those are imported when a name is first looked up, so that importing simtrain stays light.

Example:
    >>> from simtrain import registry
    >>> from simtrain.losses import GroupLoss
    >>> @registry.losses.register_module()
    ... class DoctestZeroLoss(GroupLoss):
    ...     def forward(self, embeddings, groups):
    ...         return embeddings.sum() * 0
    >>> type(registry.losses.build({"type": "DoctestZeroLoss"})).__name__
    'DoctestZeroLoss'
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from simtrain.errors import ConfigError, SimtrainError, nearest

T = TypeVar("T")


class Registry:
    """One kind of thing that configs can name.

    Args:
        kind: What the names stand for, used in error messages, for example ``"loss"``.
        locations: Modules that register the built-in classes when they are imported.
    """

    def __init__(self, kind: str, locations: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self._locations = locations
        self._classes: dict[str, Callable[..., Any]] = {}

    def register_module(self, name: str | None = None) -> Callable[[T], T]:
        """Decorator that registers a class (or a factory function) under ``name`` or its own name.

        Raises:
            ConfigError: Another class has that name already.
        """

        def register(cls: T) -> T:
            key = name or getattr(cls, "__name__")  # noqa: B009 - T may be a class or a function
            known = self._classes.get(key)
            if known is not None and known is not cls:
                raise ConfigError(f"the {self.kind} name {key!r} is taken by {known!r}; register under another name")
            self._classes[key] = cls  # type: ignore[assignment]
            return cls

        return register

    def names(self) -> list[str]:
        """All names that :meth:`get` knows, sorted."""
        self._load()
        return sorted(self._classes)

    def get(self, name: str) -> Callable[..., Any]:
        """Class registered under ``name``.

        Raises:
            ConfigError: No class has that name; the message gives the nearest one.
        """
        self._load()
        if name not in self._classes:
            raise ConfigError(
                f"unknown {self.kind} type {name!r}; {nearest(name, self._classes)}. "
                f"Import the module that registers your own before it is looked up"
            )
        return self._classes[name]

    def build(self, config: Any, /, *args: Any, **defaults: Any) -> Any:
        """Build the object that ``config`` describes.

        Args:
            config: ``{"type": name, **constructor arguments}``.
            *args: Positional arguments that the caller provides (a head's input size, say).
            **defaults: Keyword arguments used where ``config`` does not give them.

        Returns:
            The built object.

        Raises:
            ConfigError: ``type`` is missing or unknown, an argument is not one that the class takes, or the class
                refuses its value.
        """
        name, words = self._split(config)
        words = {**defaults, **words}
        factory = self.get(name)
        self._check_words(name, factory, args, words)
        try:
            return factory(*args, **words)
        except (TypeError, ValueError) as error:
            if isinstance(error, SimtrainError):
                raise
            raise ConfigError(f"{self.kind} {name!r}: {error}") from error

    def check(self, config: Any, n_args: int = 0) -> None:
        """Raise what :meth:`build` would raise for a wrong name or argument, without building anything."""
        name, words = self._split(config)
        self._check_words(name, self.get(name), (None,) * n_args, words)

    def _split(self, config: Any) -> tuple[str, dict[str, Any]]:
        if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
            raise ConfigError(
                f"a {self.kind} is given as {{'type': NAME, ...}}, got {config!r}; {nearest('', self.names())}"
            )
        return config["type"], {str(key): value for key, value in config.items() if key != "type"}

    def _check_words(
        self, name: str, factory: Callable[..., Any], args: tuple[Any, ...], words: dict[str, Any]
    ) -> None:
        signature = inspect.signature(factory)
        parameters = list(signature.parameters.values())
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            accepted = [p.name for p in parameters[len(args) :] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            for word in words:
                if word not in accepted:
                    raise ConfigError(f"{self.kind} {name!r} has no setting {word!r}; {nearest(word, accepted)}")
        try:
            signature.bind(*args, **words)
        except TypeError as error:
            raise ConfigError(f"{self.kind} {name!r}: {error}") from error

    def _load(self) -> None:
        for location in self._locations:
            importlib.import_module(location)


encoders = Registry("encoder", ("simtrain.encoders",))
heads = Registry("head", ("simtrain.heads",))
losses = Registry("loss", ("simtrain.losses",))
metrics = Registry("metric", ("simtrain.metrics.retrieval",))
optimizers = Registry("optimizer", ("simtrain.training.schedules",))
schedulers = Registry("scheduler", ("simtrain.training.schedules",))
