"""Samples that are made one after the other, each once however many processes read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.context import get_spawning_popen
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from simtrain.data.samplers.dealing import World, current_world
from simtrain.data.samples import SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample
from simtrain.errors import DataError

_SAMPLES = (SimilarityGroupSample, SimilarityPairSample, SimilarityTripletSample)


class SimilarityIterableDataset(IterableDataset[Any]):
    """Samples from a function that makes an iterator, shared out over ranks and loader workers.

    Every rank and every worker of its loader runs through the whole iterator and takes each of its turns, the first
    sample to the first of them and so on: together they give each sample once. The iterator must therefore give the
    same samples in the same order wherever it is made (shuffle with a fixed seed).

    Args:
        make_iterator: Called without arguments at the start of every epoch, in every worker; a generator function,
            for instance. Something that can be iterated any number of times, a list say, will do too; a generator
            or another iterator that can be read only once is refused.
        drop_uneven: Leave out the last few samples where they are too few for one a rank and worker. Processes that
            train together wait for each other in every step, so under several ranks an uneven end would hang.
        shard: Pass False where the iterator itself gives each rank and worker its part, as streamed Hugging Face
            data sets do for workers; nothing is shared out then.

    Raises:
        DataError: ``make_iterator`` can be read only once; in an epoch: it gave no sample, or something else.

    Example:
        >>> from simtrain.data import SimilarityPairSample
        >>> data = SimilarityIterableDataset(lambda: (SimilarityPairSample(q, q.upper()) for q in "ab"))
        >>> [sample.obj_b for sample in data], [sample.obj_b for sample in data]
        (['A', 'B'], ['A', 'B'])
    """

    def __init__(
        self,
        make_iterator: Callable[[], Iterable[Any]] | Iterable[Any],
        *,
        drop_uneven: bool = False,
        shard: bool = True,
    ) -> None:
        if isinstance(make_iterator, IterableDataset):
            raise DataError(
                f"a {type(make_iterator).__name__} is iterable data already: give it to the loader, or write a "
                "function that makes samples of what it gives, with shard=False if it deals with workers by itself"
            )
        if isinstance(make_iterator, Iterator):
            raise DataError(
                f"a {type(make_iterator).__name__} can be read only once, so that a second epoch would be empty; pass "
                "the function that makes it (make, not make()), or a list"
            )
        if not callable(make_iterator) and not isinstance(make_iterator, Iterable):
            raise DataError(f"make_iterator should be a function, got {type(make_iterator).__name__}")
        self.make_iterator = make_iterator
        self.drop_uneven = drop_uneven
        self.shard = shard
        self._parent_world = World(0, 1)
        self._last: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        number, total = self._share() if self.shard else (0, 1)
        samples = self._samples()
        while turn := list(islice(samples, total)):
            if number < len(turn) and (len(turn) == total or not self.drop_uneven):
                yield turn[number]

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned inherits no process group: whoever starts it tells it the rank. Another copy asks
        # for itself.
        world = current_world() if get_spawning_popen() is not None else World(0, 1)
        return {**self.__dict__, "_parent_world": world, "_last": None}

    def _share(self) -> tuple[int, int]:
        worker = get_worker_info()
        world = current_world()
        if worker is None:
            return world
        world = self._parent_world if world.size == 1 else world
        return world.rank * worker.num_workers + worker.id, world.size * worker.num_workers

    def _samples(self) -> Iterator[Any]:
        iterator = iter(self.make_iterator() if callable(self.make_iterator) else self.make_iterator)
        if iterator is self._last:
            raise DataError("make_iterator gave the same iterator again; it should make a new one at every call")
        self._last = iterator
        index = -1
        for index, sample in enumerate(iterator):
            if not isinstance(sample, _SAMPLES):
                kinds = " or ".join(kind.__name__ for kind in _SAMPLES)
                raise DataError(f"element {index} is a {type(sample).__name__}, expected {kinds}: {sample!r:.80}")
            yield sample
        if index < 0:
            raise DataError("make_iterator gave no sample; it should give one at least, in every epoch")
