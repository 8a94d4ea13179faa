"""Lightning's loop over epochs, which can be left and entered at exact places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import lightning
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from simtrain.data import ResumableDataLoader
from simtrain.data.resumable_loader import inner_sampler
from simtrain.runner.checkpoints.run_state import Place, generator_state, restore_generators, restore_run, run_state
from simtrain.runner.resumable_epoch_loop import ResumableEpochLoop

#: Key of what is kept in a checkpoint beside Lightning's own state of this loop.
KEY = "run"


class ResumableFitLoop(_FitLoop):
    """The loop over epochs; a run that goes on from a checkpoint of it ends with the bits of one that was never left.

    Lightning saves in the middle of its own counting (in ``on_train_batch_end``, for one), and goes on from there by
    guesses that skip validations and hooks. Here there are two kinds of places, after everything that belongs to a
    batch, or to an epoch, is done: callbacks with a method ``on_place(trainer, module, place)`` are called there, and
    what they save holds what Lightning leaves out: random numbers of each process, figures of the epoch that has begun,
    whether training was told to stop, and how the order of a loader that forgets it was drawn.

    Random transforms that workers draw are begun anew in the middle of an epoch, where the loader remembers its
    place: it starts its workers there, and not at the epoch's beginning.

    Checkpoints that are saved elsewhere are Lightning's, and are resumed as it does.
    """

    def __init__(self, trainer: lightning.Trainer) -> None:
        replaced = trainer.fit_loop
        super().__init__(trainer, replaced.min_epochs, replaced.max_epochs)
        self.epoch_loop: Any = ResumableEpochLoop(trainer, replaced.epoch_loop.min_steps, replaced.epoch_loop.max_steps)
        #: Where the run is, while it can be saved exactly.
        self.place: Place | None = None
        #: Where it was when it was left, until the loops have gone on from there.
        self.resumed: Place | None = None
        #: Where the generators stood when the epoch's order was drawn.
        self.order: dict[str, Any] = {}
        self._loaded: dict[str, Any] | None = None
        self._own: Mapping[str, Any] = {}

    @property
    def skip(self) -> bool:
        """Whether there is nothing to do. A run that was left after its last epoch still has an end of training."""
        return super().skip and not (self._loaded is not None and self.max_batches and self.trainer.limit_train_batches)

    @property
    def forgets_order(self) -> bool:
        """Whether the training loader cannot say where it is: its order is drawn again, and read up to there."""
        loader = self._combined_loader.flattened[0] if self._combined_loader is not None else None
        if not isinstance(loader, ResumableDataLoader):
            return isinstance(loader, DataLoader) and not hasattr(loader, "load_state_dict")
        in_order = type(inner_sampler(loader)) is SequentialSampler or isinstance(loader.dataset, IterableDataset)
        return loader.own_sampler is None and not in_order

    def setup_data(self) -> None:
        """As Lightning does; the loader's first order may be drawn here."""
        if self._combined_loader is None:
            self.note_order("iter")
        super().setup_data()

    def on_run_start(self) -> None:
        """Go on from a place, after all that comes before the first batch."""
        super().on_run_start()
        if self._loaded is not None:
            self.resumed = self._loaded["place"]
            self._own, self._loaded = restore_run(self.trainer, self._loaded), None

    def note_order(self, moment: Literal["iter", "fetch"]) -> None:
        """Keep where the generators stand, at a moment when they may be asked for an order."""
        loader: Any = self._data_source.instance if self._combined_loader is None else self.trainer.train_dataloader
        self.order[moment] = generator_state(self.trainer, {"train": loader})

    def read_again(self, data_fetcher: Any, count: int) -> None:
        """Draw the order of the epoch once more, and throw away the batches that were trained on."""
        if not self._own:
            return
        self.order = dict(self._own["order"])
        restore_generators(self.trainer, self.order["iter"])
        iter(data_fetcher)
        restore_generators(self.trainer, self.order["fetch"])
        for _ in range(count):
            next(data_fetcher)
        restore_generators(self.trainer, self._own["generators"])

    def on_advance_end(self) -> None:
        """As Lightning does; then the run is between two epochs."""
        try:
            super().on_advance_end()
        except SIGTERMException:
            # Raised after all else is done.
            self.reach("epoch")
            raise
        self.reach("epoch")

    def reach(self, place: Place) -> None:
        """Tell the callbacks that everything up to a place is done."""
        self.place = place
        try:
            callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
            for callback in callbacks:
                on_place = getattr(callback, "on_place", None)
                if on_place is not None:
                    on_place(self.trainer, self.trainer.lightning_module, place)
        finally:
            self.place = None

    def on_save_checkpoint(self) -> dict[str, Any]:
        """Lightning's state of this loop, with that of the run where it is at a place."""
        state: dict[str, Any] = super().on_save_checkpoint()
        for loader in state.get("combined_loader", []):
            # Of a stream, whose end is to be known in time, a batch is fetched ahead.
            if loader.get("batches"):
                loader["batches"] -= len(getattr(self._data_fetcher, "batches", ()))
        if self.place is not None:
            state[KEY] = run_state(self.trainer, self.place, self.order if self.forgets_order else {})
        return state

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until everything is set up."""
        super().on_load_checkpoint(state_dict)
        self._loaded = state_dict.get(KEY)

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """As Lightning does; between two epochs, nothing has begun."""
        super().load_state_dict(state_dict, prefix)
        # Where the number of steps was asked for, loaders are set up already, and would stay where they are.
        self._combined_loader = None
        if self._loaded is not None and self._loaded["place"] == "epoch":
            for loop in (self, self.epoch_loop, self.epoch_loop.val_loop):
                loop._restarting = False

    def _load_combined_loader_states(self) -> None:
        states, loaders = self._combined_loader_states_to_load, self._combined_loader
        if not states or loaders is None:
            return
        self._combined_loader_states_to_load = []
        loader, place = loaders.flattened[0], None if self._loaded is None else self._loaded["place"]
        counts_batches = isinstance(loader, ResumableDataLoader) and loader.own_sampler is None
        # Between two epochs there is nothing to skip, also where an epoch was cut short.
        if not (place is not None and self.forgets_order) and not (place == "epoch" and counts_batches):
            # Lightning leaves the place alone where a checkpoint was saved after an epoch.
            loaders._load_state_dicts(states)
