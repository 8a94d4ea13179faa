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
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from simtrain.errors import ConfigError, ContractError, SimtrainError, UnknownNameError, nearest

T = TypeVar("T")


class Registry:
    """One kind of thing that configs can name.

    Args:
        kind: What the names stand for, used in error messages, for example ``"loss"``.
        locations: Modules that register the built-in classes when they are imported.
        base: Full name of a class that everything registered has to derive from; by name, so that a registry
            imports nothing. Default: anything that can be called.
    """

    def __init__(self, kind: str, locations: tuple[str, ...] = (), base: str | None = None) -> None:
        self.kind = kind
        self._locations = locations
        self._base = base
        self._classes: dict[str, Callable[..., Any]] = {}
        self._families: dict[str, tuple[Callable[[], list[str]], Callable[[str], Callable[..., Any]]]] = {}

    def register_module(self, name: str | None = None) -> Callable[[T], T]:
        """Decorator that registers a class (or a factory function) under ``name`` or its own name.

        Raises:
            UnknownNameError: Another class has that name already.
            ContractError: The class is not of the registry's kind, or the parentheses were left out.
        """
        if name is not None and not isinstance(name, str):
            raise ContractError(
                f"register_module takes a name, got {name!r}; write @register_module() above a class, with parentheses"
            )

        def register(cls: T) -> T:
            self._add(name or getattr(cls, "__name__"), cls)  # noqa: B009 - T may be a class or a function
            return cls

        return register

    def register_family(
        self, prefix: str, names: Callable[[], list[str]], get: Callable[[str], Callable[..., Any]]
    ) -> None:
        """Register all classes of another package, without importing it before one of them is asked for.

        Args:
            prefix: What every name begins with.
            names: Gives the names.
            get: From a name to what builds it.
        """
        self._families[prefix] = (names, get)

    def names(self) -> list[str]:
        """All names that :meth:`get` knows, sorted."""
        self._load()
        return sorted([*self._classes, *(name for names, _ in self._families.values() for name in names())])

    def get(self, name: str) -> Callable[..., Any]:
        """Class registered under ``name``.

        Raises:
            UnknownNameError: No class has that name; the message gives the nearest one, and where a class of that
                name could be imported from.
        """
        self._load()
        if not isinstance(name, str):
            raise ContractError(f"a {self.kind} is looked up by its name, got {name!r}")
        for prefix, (names, get) in self._families.items():
            if name.startswith(prefix):
                return self._of_family(name, names(), get)
        if name not in self._classes:
            raise UnknownNameError(
                f"unknown {self.kind} type {name!r}; {nearest(name, self._classes)}. {self._whereabouts(name)}"
            )
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        families = [names for prefix, (names, _) in self._families.items() if str(name).startswith(prefix)]
        return name in self._classes or any(name in names() for names in families)

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
        except (TypeError, ValueError, LookupError) as error:
            if isinstance(error, SimtrainError):
                raise
            settings = ", ".join(f"{word}={value!r}" for word, value in words.items())
            reason = error if isinstance(error, ValueError) else f"{error} (given {settings or 'no settings'})"
            raise ConfigError(f"{self.kind} {name!r}: {_misfit(factory, words) or reason}") from error

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
        # Which Python would take without a word: "no" counts as true.
        wrong = _misfit(factory, words, only={"bool", "None"})
        if wrong is not None:
            raise ConfigError(f"{self.kind} {name!r}: {wrong}")

    def _add(self, name: str, cls: Any) -> None:
        known = self._classes.get(name)
        if known is not None and known is not cls:
            raise UnknownNameError(f"the {self.kind} name {name!r} is taken by {known!r}; register under another name")
        if self._base is not None and self._base not in _ancestors(cls):
            raise ContractError(f"a {self.kind} has to be a subclass of {self._base}, got {cls!r}")
        self._classes[name] = cls

    def _of_family(self, name: str, names: list[str], get: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
        if name not in names:
            raise UnknownNameError(f"unknown {self.kind} type {name!r}; {nearest(name, names)}")
        return get(name)

    def _load(self) -> None:
        for location in self._locations:
            importlib.import_module(location)

    def _whereabouts(self, name: str) -> str:
        module, _, bare = name.rpartition(".")
        if module:
            return f"Names are not paths: import {module} before, where {bare!r} is registered, and give its bare name"
        others = [other.kind for other in ALL if other is not self and name in other]
        if others:
            return f"There is a {' and a '.join(others)} of that name"
        homes = sorted(_homes(name))
        if homes:
            return f"A class of that name is in {homes[0]}: register it, register_module()({name})"
        return "Import the module that registers your own before it is looked up"


_PLAIN = {
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "bool": ("true or false", (bool,)),
    "str": ("a text", (str,)),
    "None": ("null", (type(None),)),
}


def _misfit(factory: Callable[..., Any], words: Mapping[str, Any], only: set[str] | None = None) -> str | None:
    # The first setting whose value is of none of the plain types that it is declared with.
    for name, parameter in inspect.signature(factory).parameters.items():
        note = parameter.annotation
        kinds = (note if isinstance(note, str) else inspect.formatannotation(note)).split(" | ")
        kinds = [kind for kind in kinds if not kind.endswith("Tensor")]  # which no config can hold
        kinds = [kind for kind in kinds if kind != "int" or "float" not in kinds]
        if name not in words or not set(kinds) <= set(_PLAIN) or (only is not None and not set(kinds) <= only):
            continue
        if not any(_is_of(words[name], _PLAIN[kind][1]) for kind in kinds):
            return f"{name} should be {' or '.join(_PLAIN[kind][0] for kind in kinds)}, got {words[name]!r}"
    return None


def _is_of(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _ancestors(cls: Any) -> set[str]:
    return {f"{base.__module__}.{base.__qualname__}" for base in getattr(cls, "__mro__", ())}


def _homes(name: str) -> Iterator[str]:
    for module, content in list(sys.modules.items()):
        found = getattr(content, "__dict__", {}).get(name)
        if inspect.isclass(found) and found.__module__ == module:
            yield module


models = Registry("model", ("simtrain.training",), base="torch.nn.modules.module.Module")
encoders = Registry("encoder", ("simtrain.encoders",))
heads = Registry("head", ("simtrain.heads",))
losses = Registry("loss", ("simtrain.losses",))
miners = Registry("miner", ("simtrain.losses",))
metrics = Registry(
    "metric",
    (
        "simtrain.metrics.retrieval",
        "simtrain.metrics.pair_metrics",
        "simtrain.metrics.geometry_metrics",
        "simtrain.evaluation.set_retrieval",
        "simtrain.evaluation.pair_correlation",
    ),
)
samplers = Registry("sampler", ("simtrain.data",))
preprocessors = Registry(
    "data preprocessor",
    (
        "simtrain.training.data_preprocessor",
        "simtrain.training.image_preprocessor",
        "simtrain.training.mixup_preprocessor",
    ),
)
optimizers = Registry("optimizer", ("simtrain.training.schedules",))
schedulers = Registry("scheduler", ("simtrain.training.schedules",))
callbacks = Registry("callback", ("simtrain.training.averaging", "simtrain.runner.callbacks"))
# From an item to a random version of it, and from an item to its key: for the cache. There are none of our own.
augments = Registry("augment function")
key_extractors = Registry("key extractor")

ALL = (
    *(models, encoders, heads, losses, miners, metrics, samplers, preprocessors, optimizers, schedulers, callbacks),
    *(augments, key_extractors),
)
