"""Items that a distributed sampler repeats, so that all processes have as many: told by their numbers."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from simtrain.data.batches import Targets


class RepeatedItems:
    """Leaves out of an epoch's global batches what an earlier one had.

    Example:
        >>> repeats = RepeatedItems()
        >>> targets = {"groups": torch.tensor([4, 5]), "items": torch.tensor([0, 1])}
        >>> _ = repeats.left_out(torch.zeros(2, 3), targets)
        >>> _, rest = repeats.left_out(torch.zeros(2, 3), {**targets, "items": torch.tensor([2, 0])})
        >>> rest["items"].tolist(), rest["groups"].tolist()
        ([2], [4])
    """

    def __init__(self) -> None:
        self._seen: dict[int, Tensor] = {}

    def clear(self) -> None:
        """Begin another epoch."""
        self._seen.clear()

    def left_out(
        self, embeddings: Float[Tensor, "rows dim"], targets: Targets, loader: int = 0
    ) -> tuple[Float[Tensor, "kept dim"], Targets]:
        """Embeddings and targets of the items that no batch of this loader had before.

        Args:
            embeddings: Of the global batch.
            targets: Its targets; without ``items`` nothing can be told, and nothing is left out.
            loader: Number of the loader.
        """
        if "items" not in targets:
            return embeddings, targets
        fresh = self._fresh(targets["items"].cpu(), loader).to(embeddings.device)
        return (embeddings, targets) if bool(fresh.all()) else (embeddings[fresh], _kept(targets, fresh))

    def _fresh(self, items: Tensor, loader: int) -> Bool[Tensor, " rows"]:
        seen = self._seen.get(loader, torch.zeros(0, dtype=torch.bool))
        needed = int(items.max()) + 1 if len(items) else 0
        if needed > len(seen):
            seen = torch.cat([seen, torch.zeros(2 * needed - len(seen), dtype=torch.bool)])
        ordered, places = items.sort(stable=True)
        again = torch.zeros_like(items, dtype=torch.bool)
        again[places[1:]] = ordered[1:] == ordered[:-1]
        fresh = ~seen[items] & ~again
        seen[items] = True
        self._seen[loader] = seen
        return fresh


def _kept(targets: Targets, fresh: Bool[Tensor, " rows"]) -> Targets:
    if "pairs" not in targets:
        return {name: target[fresh] if len(target) == len(fresh) else target for name, target in targets.items()}
    pairs = targets["pairs"]
    whole = fresh[pairs].all(dim=1)
    places = fresh.cumsum(0) - 1
    kept = {"pairs": places[pairs[whole]]}
    for name, target in targets.items():
        if name != "pairs":
            of_pairs = name == "labels" or len(target) != len(fresh)
            kept[name] = target[whole if of_pairs else fresh]
    return {name: kept[name] for name in targets}
