"""A whole training job from a config: read, build, measure, train, measure again, save."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import lightning
from omegaconf import DictConfig
from torch.utils.data import Dataset

from simtrain import registry
from simtrain.config import load_cfg, plain, require
from simtrain.data import (
    GroupSimilarityDataLoader,
    PairsSimilarityDataLoader,
    QueryGallery,
    SimilarityDataLoader,
    TripletSimilarityDataLoader,
    save_label_names,
)
from simtrain.data.batches import layout_of
from simtrain.data.loaders import read_samples
from simtrain.data.sides import DOCUMENT, QUERY
from simtrain.errors import ConfigError
from simtrain.evaluation import RetrievalResult, evaluate
from simtrain.evaluation.text_files import draft
from simtrain.runner.data_source import data_source
from simtrain.runner.job_data import read_data
from simtrain.runner.runner import Runner
from simtrain.training import TrainableModel, build_model

DEFAULT_FOLDER = "runs/simtrain"
logger = logging.getLogger("simtrain")
_PAIR_TARGETS = {"pairs", "labels", "subgroups"}


@dataclass
class FitResult:
    """What a training job came to.

    Attributes:
        model: The trained model.
        run_dir: Folder of the run: ``model/``, ``config.yaml``, ``environment.json`` and ``metrics.json``.
        before: Figures of the encoders alone on the test file; None without one.
        after: Figures of the trained model on the test file; None without one.
        seconds: Stage → time taken.
        label_names: Number → label, for training data in groups; saved as ``labels.json``.
    """

    model: TrainableModel
    run_dir: Path
    before: RetrievalResult | None = None
    after: RetrievalResult | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    label_names: Mapping[int, Any] | None = None

    @property
    def model_path(self) -> Path:
        """Folder of the saved model."""
        return self.run_dir / "model"

    def as_dict(self) -> dict[str, Any]:
        """Folders, figures before and after, and seconds by stage, as JSON values."""
        return {
            "run_dir": str(self.run_dir),
            "model": str(self.model_path),
            "before": self.before.as_dict() if self.before else None,
            "after": self.after.as_dict() if self.after else None,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }


def fit(
    cfg: str | Path | Mapping[str, Any] | DictConfig, overrides: Sequence[str] = (), *, callbacks: Sequence[Any] = ()
) -> FitResult:
    """Run the training job of a config.

    Every name and every file is checked before anything is written. Frozen encoders run once, into the cache that
    the config asks for; with a test file, retrieval is measured before and after training.

    Args:
        cfg: Config file, mapping or config; see :class:`simtrain.config.Config`.
        overrides: ``key=value`` words on top of it.
        callbacks: What else to call in training; see :class:`simtrain.Runner`.

    Returns:
        The trained model, its folder and the figures.

    Raises:
        ConfigError: The config is wrong, or its parts do not fit each other.
        DataError: A data file is wrong.
    """
    cfg = load_cfg(cfg, overrides)
    cfg.run_dir = cfg.run_dir or DEFAULT_FOLDER
    require(cfg, ["encoders", "loss", "data.train"])
    seed_run(cfg)
    data = read_data(cfg)
    model = build_model(cfg)
    check_kind(cfg, model)
    check_folder(Path(cfg.run_dir))
    loaders = {
        stage: make_loader(cfg, cast("Dataset[Any]", data[stage]), stage)
        for stage in ("train", "valid")
        if stage in data
    }
    runner = Runner(
        model, train_data_loader=loaders["train"], valid_data_loader=loaders.get("valid"), cfg=cfg, callbacks=callbacks
    )
    result = FitResult(model, Path(cfg.run_dir), label_names=getattr(data["train"], "label_names", None))
    _tell_uncached(cfg, model)
    with _timed(result, "cache"):
        # On the device that training runs on: what is encoded elsewhere would be encoded again there.
        runner.place_model()
        fill_cache(model, data)
    with _timed(result, "evaluation before"):
        result.before = _evaluated(model, data.get("test"), encoders_only=True)
    with _timed(result, "training"):
        runner.fit()
    with _timed(result, "evaluation after"):
        runner.place_model()  # lightning has taken the model back to the CPU
        result.after = _evaluated(model, data.get("test"))
    save(result, cfg)
    return result


def seed_run(cfg: DictConfig) -> None:
    """Seed every random choice of a run."""
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)


def check_kind(cfg: DictConfig, model: TrainableModel) -> None:
    """Raise a :class:`ConfigError` where the loss does not take the kind of the data."""
    kinds = {"pairs": _PAIR_TARGETS, "groups": {"groups"}, "triplets": _PAIR_TARGETS | {"groups"}}
    needed = set(model.loss.target_names) & kinds["triplets"]
    wanted = [kind for kind, targets in kinds.items() if needed <= targets]
    for stage in ("train", "valid"):
        if cfg.data[stage] is None:
            continue
        kind = data_source(cfg, stage).kind
        if kind not in wanted:
            where = "data.kind" if kind == cfg.data.kind else f"data.{stage}.kind"
            raise ConfigError(
                f"{type(model.loss).__name__} takes {' or '.join(wanted)}, but {where} is {kind!r}; change one of them"
            )


def check_folder(path: Path) -> None:
    """Raise a :class:`ConfigError` where no folder can be made at ``path`` because something else is in the way."""
    for part in (path, *path.parents):
        if part.exists():
            if not part.is_dir():
                raise ConfigError(f"run_dir {str(path)!r} cannot be a folder: {str(part)!r} is a file")
            return


def fill_cache(model: TrainableModel, data: Mapping[str, Dataset[Any] | QueryGallery]) -> None:
    """Fill the model's caches with all items of a job at once, so that equal items of two files are encoded once."""
    model.cached.open(model.device)
    for stage, dataset in data.items():
        if isinstance(dataset, QueryGallery):
            items = [*dataset.queries, *dataset.gallery]
            sides = [QUERY] * len(dataset.queries) + [DOCUMENT] * len(dataset.gallery)
            model.cached.fill(items, f"{stage} data", sides)
            continue
        samples = read_samples(dataset)
        layout = layout_of(samples)
        model.cached.fill(layout.objects(samples), f"{stage} data", layout.sides(samples))


def _tell_uncached(cfg: DictConfig, model: TrainableModel) -> None:
    cache = {"cache_type": "none"} if cfg.cache is None else plain(cfg.cache)
    asked_for = str(cache.get("cache_type") or "auto").lower() != "none" and not cache.get("boundary")
    if asked_for and all(encoder.trainable for encoder in model.model.encoders.values()):
        logger.warning(
            "the section 'cache' does nothing here: every encoder is trained, so that its embeddings change; freeze "
            "one (trainable: false), or leave the section out"
        )


def make_loader(cfg: DictConfig, dataset: Dataset[Any], stage: str) -> SimilarityDataLoader:
    """Loader of a stage: in the sampler's order or shuffled for training, in the file's order otherwise."""
    kinds: dict[str, type[SimilarityDataLoader]] = {
        "pairs": PairsSimilarityDataLoader,
        "triplets": TripletSimilarityDataLoader,
        "groups": GroupSimilarityDataLoader,
    }
    batch_size, training = cfg.training.batch_size, stage == "train"
    order: dict[str, Any] = {"shuffle": training}
    if training and cfg.data.sampler is not None:
        order = {"sampler": registry.samplers.build(plain(cfg.data.sampler), dataset, batch_size=batch_size)}
    return kinds[data_source(cfg, stage).kind](
        dataset,
        batch_size=batch_size,
        drop_last=cfg.training.drop_last and training,
        num_workers=cfg.training.num_workers,
        **order,
    )


def save(result: FitResult, cfg: DictConfig) -> None:
    """Write model and figures into the run's folder, beside the config that is there."""
    card = {
        "data": plain(cfg.data),
        "metrics": {"before": result.before, "after": result.after},
        "config": plain(cfg),
    }
    result.model.save_servable(result.model_path, card)
    if result.label_names is not None:
        save_label_names(result.run_dir / "labels.json", result.label_names)
    figures = {key: value for key, value in result.as_dict().items() if key not in ("run_dir", "model")}
    with draft(result.run_dir / "metrics.json") as file:
        file.write(json.dumps(figures, indent=2) + "\n")


def _evaluated(
    model: TrainableModel, test: Dataset[Any] | QueryGallery | None, encoders_only: bool = False
) -> RetrievalResult | None:
    if test is None:
        return None
    return evaluate(model.cached.without_head() if encoders_only else model.cached, test)


@contextmanager
def _timed(result: FitResult, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    result.seconds[stage] = time.perf_counter() - start
