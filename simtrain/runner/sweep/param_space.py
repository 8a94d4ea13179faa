"""What a sweep varies: the values that each key may take."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simtrain.errors import ConfigError, nearest

_WORDS = {
    "choice": ("values",),
    "grid": ("values",),
    "uniform": ("low", "high"),
    "loguniform": ("low", "high"),
    "randint": ("low", "high"),
}


@dataclass(frozen=True)
class Param:
    """The values of one key.

    Attributes:
        key: The key, with dots.
        type: ``choice``, ``grid``, ``uniform``, ``loguniform`` or ``randint``.
        values: What to choose from; for ranges ``(low, high)``.
    """

    key: str
    type: str
    values: tuple[Any, ...]

    @classmethod
    def from_words(cls, key: str, words: Any) -> Param:
        """Read one entry of ``param_space``.

        Raises:
            ConfigError: It is written wrongly.

        Example:
            >>> Param.from_words("optimizer.lr", {"type": "loguniform", "low": 1e-4, "high": 0.1}).values
            (0.0001, 0.1)
        """
        place = f"param_space.{key}"
        if not isinstance(words, Mapping) or words.get("type") not in _WORDS:
            kind = words.get("type") if isinstance(words, Mapping) else None
            known = f"; unknown type {kind!r}, {nearest(str(kind), _WORDS)}" if kind is not None else ""
            raise ConfigError(f"{place} should be {{type: choice, values: [...]}} or the like, got {words!r}{known}")
        kind, accepted = words["type"], _WORDS[words["type"]]
        for word in words:
            if word not in ("type", *accepted):
                raise ConfigError(f"{place} has no setting {word!r}; {nearest(str(word), accepted)}")
        for word in accepted:
            if word not in words:
                raise ConfigError(f"{place} of the type {kind!r} lacks {word!r}")
        values = words["values"] if accepted == ("values",) else (words["low"], words["high"])
        if not isinstance(values, (list, tuple)) or not values:
            raise ConfigError(f"{place}.values should be a list of one value or more, got {values!r}")
        if accepted == ("low", "high"):
            _check_range(place, kind, *values)
        return cls(key, kind, tuple(values))

    def suggest(self, trial: Any) -> Any:
        """A value for one of Optuna's trials."""
        if self.type in ("choice", "grid"):
            # As text: Optuna's choices are plain values, ours may be lists and mappings.
            return json.loads(trial.suggest_categorical(self.key, [json.dumps(value) for value in self.values]))
        low, high = self.values
        if self.type == "randint":
            return trial.suggest_int(self.key, low, high)
        return trial.suggest_float(self.key, low, high, log=self.type == "loguniform")


class ParamSpace:
    """All that a sweep varies.

    Args:
        params: The values of each key.

    Example:
        >>> space = ParamSpace.from_words({"seed": {"type": "grid", "values": [1, 2]}})
        >>> space.grid_points()
        [{'seed': '1'}, {'seed': '2'}]
    """

    def __init__(self, params: Sequence[Param]) -> None:
        self.params = list(params)

    @classmethod
    def from_words(cls, words: Mapping[str, Any]) -> ParamSpace:
        """Read ``param_space``: keys with dots, or nested mappings.

        Raises:
            ConfigError: There is nothing in it, or an entry is written wrongly.
        """
        params = [Param.from_words(key, value) for key, value in _flat(words)]
        if not params:
            raise ConfigError("param_space names no key; write optimizer.lr: {type: loguniform, low: 1e-4, high: 1e-1}")
        return cls(params)

    def suggest(self, trial: Any) -> dict[str, Any]:
        """A value of each key for one of Optuna's trials."""
        return {param.key: param.suggest(trial) for param in self.params}

    def grid_points(self) -> list[dict[str, str]]:
        """All combinations of what is on a grid, as Optuna knows them; none where nothing is."""
        grids = [param for param in self.params if param.type == "grid"]
        texts = [[json.dumps(value) for value in param.values] for param in grids]
        keys = [param.key for param in grids]
        return [dict(zip(keys, point, strict=True)) for point in itertools.product(*texts)] if grids else []

    def corners(self) -> Iterator[dict[str, Any]]:
        """The first value of each key together, then each other choice or end of a range by itself."""
        first = {param.key: param.values[0] for param in self.params}
        yield first
        for param in self.params:
            for value in param.values[1:]:
                yield {**first, param.key: value}

    def decoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values that Optuna's stand for."""
        texts = {param.key for param in self.params if param.type in ("choice", "grid")}
        return {key: json.loads(value) if key in texts else value for key, value in params.items()}

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The words ``key=value`` that set a job's config to these values."""
        return [f"{key}={json.dumps(value)}" for key, value in params.items()]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values, to tell two spaces apart."""
        return {param.key: [param.type, *param.values] for param in self.params}


def _flat(words: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in words.items():
        nested = isinstance(value, Mapping) and "type" not in value
        # A section that has a key called type is written with dots, as everything may be.
        if nested and all(isinstance(inner, Mapping) for inner in value.values()) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _check_range(place: str, kind: str, low: Any, high: Any) -> None:
    whole = (int,) if kind == "randint" else (int, float)
    for word, value in (("low", low), ("high", high)):
        if not isinstance(value, whole) or isinstance(value, bool):
            raise ConfigError(
                f"{place}.{word} should be {'an integer' if kind == 'randint' else 'a number'}, got {value!r}"
            )
    if low >= high:
        raise ConfigError(f"{place}.low should be below high, got {low} and {high}")
    if kind == "loguniform" and low <= 0:
        raise ConfigError(f"{place}.low should be above 0 for loguniform, got {low}")
