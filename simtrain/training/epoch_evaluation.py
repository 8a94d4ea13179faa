"""What evaluators are told of an epoch's batches, and their figures at its end."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from simtrain.data.loaders import with_collate
from simtrain.data.samplers.dealing import current_world
from simtrain.errors import DataError
from simtrain.training.attached_evaluator import AttachedEvaluator
from simtrain.training.equal_items import equal_items
from simtrain.training.stages import TrainStage

#: Key of the data set's meta information: item number → number of the first item that is equal to it.
SAME_ITEMS = "same_items"


class EpochEvaluation:
    """The evaluators of a model; each stage and each loader has its own copy of them.

    Args:
        attached: The evaluators with their stages.
    """

    def __init__(self, attached: Sequence[AttachedEvaluator]) -> None:
        self.attached = list(attached)
        self._copies: dict[tuple[TrainStage, int], list[tuple[AttachedEvaluator, Any]]] = {}
        self._known_items: dict[int, tuple[Any, Any]] = {}
        self._measured: list[tuple[AttachedEvaluator, dict[str, float]]] = []

    def at(self, stage: TrainStage) -> bool:
        """Whether the batches of a stage are measured."""
        return bool(self._of(stage))

    def measure(self, stage: TrainStage, model: Any) -> None:
        """Let evaluators with data of their own measure the model as it is now; :meth:`figures` has what they find.

        Args:
            stage: The stage.
            model: What encodes raw items.
        """
        for one in self._of(stage, measures_model=True):
            self._measured.append((one, one.evaluator.evaluate_model(model)))

    def measures_model(self, stage: TrainStage) -> bool:
        """Whether there are evaluators with data of their own at a stage."""
        return bool(self._of(stage, measures_model=True))

    def start(self, stage: TrainStage, loaders: Any) -> None:
        """Begin an epoch, with what is known of its data sets."""
        if not self.at(stage):
            return
        for number, loader in enumerate(_listed(loaders)):
            copies = [(one, copy.deepcopy(one.evaluator)) for one in self._of(stage)]
            for _, evaluator in copies:
                if hasattr(evaluator, "dataset_meta"):
                    evaluator.dataset_meta = {SAME_ITEMS: self._equal_items(loader)}
            self._copies[stage, number] = copies

    def process(self, stage: TrainStage, results: Any, batch: Any, number: int = 0) -> None:
        """Hand a batch of the loader ``number`` to the evaluators of a stage."""
        for _, evaluator in self._copies.get((stage, number), ()):
            evaluator.process(data_samples=results, data_batch=batch)

    def figures(
        self, stage: TrainStage, loaders: Any, is_whole: bool = True
    ) -> Iterator[tuple[str, float, dict[str, Any]]]:
        """Name, figure and log options of all that was measured in an epoch, which is then over.

        Args:
            stage: The stage.
            loaders: Its loaders.
            is_whole: Whether the loaders were read to their ends.
        """
        while self._measured:
            attached, found = self._measured.pop(0)
            for name, value in found.items():
                yield attached.log_name(name, stage), float(value), attached.log_options
        listed = _listed(loaders)
        for number, loader in enumerate(listed):
            suffix = f"/dataloader_idx_{number}" if len(listed) > 1 else ""
            for attached, evaluator in self._copies.pop((stage, number), ()):
                for name, value in evaluator.evaluate(_size(loader) if is_whole else 0).items():
                    yield attached.log_name(name, stage) + suffix, float(value), attached.log_options

    def _of(self, stage: TrainStage, measures_model: bool = False) -> list[AttachedEvaluator]:
        return [one for one in self.attached if stage in one.stages and one.measures_model == measures_model]

    def __deepcopy__(self, memo: dict[int, Any]) -> EpochEvaluation:
        return EpochEvaluation(self.attached)

    def _equal_items(self, loader: Any) -> Any:
        # Data sets are known by which object they are, and kept, so that no other can come to lie at their place.
        source = getattr(loader, "collate_fn", None) if _is_rows(loader) else getattr(loader, "dataset", None)
        known = self._known_items.get(id(source))
        if known is None:
            known = self._known_items[id(source)] = (source, equal_items(loader))
        return known[1]


def in_order(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A copy of a loader that gives each sample once, in the order of the data set; of several processes, in turn.

    Raises:
        DataError: The data are a stream.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        raise DataError("an evaluator of the stage 'train' embeds the training set anew: give a map-style data set")
    world = current_world()
    dataset: Any = loader.dataset
    own = range(world.rank, len(dataset), world.size)
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 256
    # A loader without batches of its own gives what the data set holds, which are batches.
    batches = None if loader.batch_sampler is None else BatchSampler(own, size, drop_last=False)
    twin = with_collate(loader, loader.collate_fn)
    # A loader refuses to have its samplers set; this copy lives for one pass. No generator of training is moved.
    twin.__dict__.update(sampler=own, batch_sampler=batches, generator=None)
    return twin


def _listed(loaders: Any) -> list[Any]:
    return list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]


def _size(loader: Any) -> int:
    dataset = getattr(loader, "dataset", None)
    return 0 if dataset is None or isinstance(dataset, IterableDataset) else len(dataset)


def _is_rows(loader: Any) -> bool:
    return hasattr(getattr(loader, "collate_fn", None), "rows")
