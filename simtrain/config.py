"""Config files: a schema of dataclasses, YAML files merged into it, and ``key=value`` overrides on top."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from simtrain import registry
from simtrain.errors import ConfigError, nearest


@dataclass
class DataConfig:
    """Where the samples come from.

    ``train``, ``valid`` and ``test`` each are the path of a file (CSV, TSV or JSONL, each also gzipped, or Parquet), or
    of a folder of images with a sub-folder for each group, or a mapping with a ``path`` and any other setting of
    :class:`simtrain.runner.data_source.DataSource`.

    Attributes:
        kind: ``pairs`` (query, document), ``triplets`` (anchor, positive, negatives) or ``groups`` (item, group).
        train: Data to train on.
        valid: Data to validate on; optional.
        test: Data to evaluate on before and after training; optional. May also be of the kind ``query_gallery``.
        columns: Role → column name, where a file's columns are named otherwise.
        sampler: ``{type: …}`` of the order in training, such as ``{type: PKSampler, per_group: 4}``; null shuffles.
    """

    kind: str = "pairs"
    train: Any = None
    valid: Any = None
    test: Any = None
    columns: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] | None = None


@dataclass
class TrainingConfig:
    """How the training loop runs.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Samples a batch.
        drop_last: Leave out the last, smaller batch of an epoch.
        num_workers: Worker processes that collate; not needed where every encoder is cached.
        gradient_accumulation: Batches whose gradients are summed for one optimizer step.
        grad_clip: Largest gradient norm; null for none.
        precision: Lightning's word for the number format: ``32-true``, ``bf16-mixed``, ``16-mixed``, ...
        device: ``auto``, ``cpu``, ``cuda``, ...
        devices: How many of them; more than one trains one process on each.
        strategy: Lightning's word for how processes work together: ``auto``, ``ddp``, ...
        ema: Arguments of :class:`simtrain.training.averaging.WeightEMA`; null for no averaging of weights.
        progress_bar: Show a progress bar; null shows one on a terminal only.
        loop: ``auto`` takes the fast loop where every encoder is cached and there is one device; ``cached`` refuses to
            run without it; ``trainer`` never takes it.
    """

    epochs: int = 10
    batch_size: int = 256
    drop_last: bool = False
    num_workers: int = 0
    gradient_accumulation: int = 1
    grad_clip: float | None = None
    precision: str = "32-true"
    device: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    ema: dict[str, Any] | None = None
    progress_bar: bool | None = None
    loop: str = "auto"


@dataclass
class Config:
    """A whole training job.

    Attributes:
        run_dir: Folder for the model, the resolved config and the figures of this run.
        seed: Seed of every random choice.
        encoders: ``{type: …}`` of one encoder, or encoders by name.
        head: ``{type: …}`` of the head.
        loss: ``{type: …}`` of the loss.
        loss_lr: Learning rate of the loss's own parameters (class weights, proxies); null for the optimizer's.
        optimizer: ``{type: …}`` of the optimizer.
        scheduler: ``{type: …}`` of the learning-rate schedule; null for a constant rate.
        cache: Arguments of :class:`simtrain.CacheConfig`; null for no cache.
        xbm: Arguments of :class:`simtrain.XbmConfig`; null for no memory.
        metrics: Name → ``{type: …}`` of a metric that is logged for each batch.
        evaluators: Name → ``{type: …, stages: …}`` of what measures whole data sets at the end of each epoch.
        data: See :class:`DataConfig`.
        training: See :class:`TrainingConfig`.
    """

    run_dir: str = "runs/simtrain"
    seed: int = 0
    encoders: dict[str, Any] = MISSING
    head: dict[str, Any] = field(default_factory=lambda: {"type": "SkipConnectionHead"})
    loss: dict[str, Any] = MISSING
    loss_lr: float | None = None
    optimizer: dict[str, Any] = field(default_factory=lambda: {"type": "AdamW", "lr": 1e-3})
    scheduler: dict[str, Any] | None = None
    cache: dict[str, Any] | None = None
    xbm: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    evaluators: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true")
DATA_KINDS = ("pairs", "groups", "triplets")
LOOPS = ("auto", "cached", "trainer")
DEVICES = ("auto", "cpu", "cuda", "gpu", "mps")
# A file that names one of these says the whole part: default arguments of another type must not leak into it.
_REPLACED_PARTS = ("head", "optimizer")


def load_cfg(
    source: str | Path | Mapping[str, Any] | DictConfig | None = None, overrides: Sequence[str] = ()
) -> DictConfig:
    """Read a config, check every name in it, and fill in the defaults.

    Args:
        source: YAML file, or the same as a mapping; None gives the defaults.
        overrides: ``key=value`` words, dots for nesting (``training.epochs=3``); values are YAML.

    Returns:
        The full config, with the fields of :class:`Config`.

    Raises:
        ConfigError: The file is missing or malformed, or a key, a type or a value is wrong.

    Example:
        >>> cfg = load_cfg({"loss": {"type": "TripletLoss"}}, ["training.epochs=3"])
        >>> cfg.training.epochs, cfg.training.batch_size
        (3, 256)
    """
    given = OmegaConf.merge(_read(source), _parse_overrides(overrides))
    assert isinstance(given, DictConfig)
    defaults = OmegaConf.structured(Config)
    for part in _REPLACED_PARTS:
        if isinstance(given.get(part), DictConfig) and "type" in given[part]:
            defaults[part] = {}
    try:
        merged = OmegaConf.merge(defaults, given)
        OmegaConf.resolve(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error, given)) from error
    assert isinstance(merged, DictConfig)
    _check_components(merged)
    return merged


def require(cfg: DictConfig, keys: Iterable[str]) -> None:
    """Raise a :class:`ConfigError` that names the first of ``keys`` (dotted) that has no value."""
    for key in keys:
        if OmegaConf.is_missing(cfg, key) or OmegaConf.select(cfg, key) is None:
            raise ConfigError(f"the config gives no value for {key!r}; add it to the file or as {key}=…")


def plain(node: Any) -> Any:
    """Config node as plain dicts and lists."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _read(source: str | Path | Mapping[str, Any] | DictConfig | None) -> DictConfig:
    if source is None:
        return OmegaConf.create({})
    if isinstance(source, (str, Path)):
        return _read_file(Path(source))
    return source if isinstance(source, DictConfig) else OmegaConf.create(dict(source))


def _read_file(path: Path) -> DictConfig:
    if not path.is_file():
        raise ConfigError(f"there is no config file {str(path)!r}")
    try:
        content = OmegaConf.load(path)
    except Exception as error:
        # OmegaConf lets the YAML parser's own exceptions through; each says line and column.
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path} should hold keys and values at its top level, got a {type(content).__name__}")
    return content


def _parse_overrides(overrides: Sequence[str]) -> DictConfig:
    for word in overrides:
        if not re.match(r"[A-Za-z_][\w.-]*=", word):
            raise ConfigError(f"an override is written key=value (training.epochs=3), got {word!r}")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except Exception as error:
        raise ConfigError(f"cannot read the overrides {' '.join(overrides)!r}: {error}") from error


def _explain(error: OmegaConfBaseException, given: DictConfig) -> str:
    key = error.full_key or error.key or ""
    parent, _, name = str(key).rpartition(".")
    schema = OmegaConf.select(OmegaConf.structured(Config), parent) if parent else OmegaConf.structured(Config)
    # Asked of the keys: a required key that has no value yet is not "in" a config.
    if isinstance(schema, DictConfig) and name not in schema.keys():  # noqa: SIM118
        return f"the config has an unknown key {key!r}; {nearest(name, [str(word) for word in schema])}"
    value = OmegaConf.select(given, str(key), throw_on_missing=False)
    reason = str(error).splitlines()[0]
    return f"the config's value for {key!r} does not fit: {reason} (got {value!r})"


def _check_components(cfg: DictConfig) -> None:
    if not OmegaConf.is_missing(cfg, "encoders"):
        for encoder in named_encoders(cfg.encoders).values():
            registry.encoders.check(encoder)
    for key, room, positional in (
        ("head", registry.heads, 1),
        ("loss", registry.losses, 0),
        ("optimizer", registry.optimizers, 1),
        ("scheduler", registry.schedulers, 2),
    ):
        if not OmegaConf.is_missing(cfg, key) and cfg[key] is not None:
            room.check(plain(cfg[key]), positional)
    if cfg.training.ema is not None:
        registry.callbacks.check({"type": "EMA", **plain(cfg.training.ema)})
    for metric in plain(cfg.metrics).values():
        registry.metrics.check(metric)
    for evaluator in plain(cfg.evaluators).values():
        own = ("stages", "prog_bar", "logger")
        words = dict(evaluator) if isinstance(evaluator, dict) else {}
        registry.metrics.check({word: value for word, value in words.items() if word not in own} or evaluator)
    if cfg.data.kind not in DATA_KINDS:
        raise ConfigError(f"unknown data.kind {cfg.data.kind!r}; {nearest(cfg.data.kind, DATA_KINDS)}")
    if cfg.data.sampler is not None:
        registry.samplers.check({"batch_size": cfg.training.batch_size, **plain(cfg.data.sampler)}, 1)
    _check_numbers(cfg)


def _check_numbers(cfg: DictConfig) -> None:
    training = cfg.training
    for key in ("epochs", "batch_size", "gradient_accumulation", "devices"):
        if training[key] < 1:
            raise ConfigError(f"training.{key} should be at least 1, got {training[key]}")
    if training.num_workers < 0:
        raise ConfigError(f"training.num_workers should be at least 0, got {training.num_workers}")
    if training.grad_clip is not None and not training.grad_clip > 0:
        raise ConfigError(f"training.grad_clip should be above 0, or null for none, got {training.grad_clip}")
    if not 0 <= cfg.seed < 2**32:
        raise ConfigError(f"seed should be from 0 to {2**32 - 1}, got {cfg.seed}")
    if training.precision not in PRECISIONS:
        raise ConfigError(
            f"unknown training.precision {training.precision!r}; {nearest(training.precision, PRECISIONS)}"
        )
    if training.loop not in LOOPS:
        raise ConfigError(f"unknown training.loop {training.loop!r}; {nearest(training.loop, LOOPS)}")
    if training.device not in DEVICES:
        raise ConfigError(f"unknown training.device {training.device!r}; {nearest(training.device, DEVICES)}")


def named_encoders(encoders: Mapping[str, Any]) -> dict[str, Any]:
    """The encoders of a config's section by name; one that is given without a name is called ``default``."""
    section = plain(encoders)
    return {"default": section} if isinstance(section.get("type"), str) else dict(section)
