"""The embeddings that a sampler of hard classes wants before an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from simtrain.data import HardClassSampler
from simtrain.data.samplers.dealing import World, current_world
from simtrain.errors import DataError

#: From a batch of a loader, and whether it is collated for the encoders, to embeddings, and targets.
EmbedBatch = Callable[[Any], tuple[Tensor, Any]]


def hard_class_loaders(loaders: Any) -> list[DataLoader[Any]]:
    """The loaders whose :class:`~simtrain.data.HardClassSampler` is to be updated by training."""
    given = loaders if isinstance(loaders, (list, tuple)) else [loaders]
    return [one for one in given if isinstance(one, DataLoader) and _sampler_of(one) is not None]


def goes_on_unannounced(fit_loop: Any) -> bool:
    """Whether a resumed run's first epoch begins without ``on_train_epoch_start``.

    Lightning leaves that out where a checkpoint was saved before its epoch had ended, also after the last batch: the
    epoch that comes first is then a whole new one.
    """
    return bool(getattr(fit_loop, "restarted_mid_epoch", False) or getattr(fit_loop, "restarted_on_epoch_end", False))


def update_classes(loader: DataLoader[Any], embed: EmbedBatch, gather: Callable[[Tensor], Any]) -> None:
    """Embed the items that a loader's sampler asks for, and hand them to it.

    Processes embed a part each; all get all of it. No random number of training is drawn.

    Args:
        loader: A loader with a :class:`~simtrain.data.HardClassSampler`.
        embed: From a batch of the loader to its embeddings and targets.
        gather: From a tensor of each process to all of them, ``(processes, ...)``.

    Raises:
        DataError: The loader's samples are not single items with groups, or an embedding is not finite.
    """
    sampler = _sampler_of(loader)
    assert sampler is not None
    items = sampler.items_to_embed()
    if not len(items):
        return
    world = current_world()
    # As many for each process as a gathering needs: the last ones are embedded twice.
    share = -(-len(items) // world.size)
    mine = torch.from_numpy(items).repeat(2)[world.rank * share : (world.rank + 1) * share]
    with isolate_rng(), torch.no_grad():
        embeddings = _embedded(loader, mine.tolist(), embed)
    if world.size > 1:
        embeddings = _joined(embeddings, world, gather)
    sampler.update(embeddings[: len(items)].float(), sampler.labels_of(items))


def _embedded(loader: DataLoader[Any], items: list[int], embed: EmbedBatch) -> Float[Tensor, "items dim"]:
    batches = DataLoader(
        Subset(loader.dataset, items),
        batch_size=loader.batch_size or 1,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator(),
    )
    parts = []
    for batch in batches:
        embeddings, targets = embed(batch)
        if "groups" not in targets or "pairs" in targets:
            raise DataError(
                f"a HardClassSampler is for single items with groups, but the loader's batches have the targets "
                f"{sorted(targets)}; use a GroupSimilarityDataLoader, or by_training=False and update() of your own"
            )
        parts.append(embeddings.detach())
    return torch.cat(parts)


def _joined(embeddings: Tensor, world: World, gather: Callable[[Tensor], Any]) -> Tensor:
    joined: Tensor = gather(embeddings)
    return joined.reshape(world.size * len(embeddings), -1)


def _sampler_of(loader: DataLoader[Any]) -> HardClassSampler | None:
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    return sampler if isinstance(sampler, HardClassSampler) and sampler.by_training else None
