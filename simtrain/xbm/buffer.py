"""The ring of remembered embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn

from simtrain.errors import CheckpointError, ConfigError, DataError
from simtrain.losses.memory_rows import MemoryRows
from simtrain.xbm.config import parse_device, parse_dtype


class XbmBuffer(nn.Module):
    """A ring of the most recent embeddings with their groups and items.

    All state is in registered buffers, so a checkpoint holds the ring, its write position and its fill. Where the
    device is ``"auto"``, the ring moves with the module; given a device, it stays there, in its own dtype, also
    when the model that holds it moves.

    Args:
        buffer_size: How many embeddings are remembered.
        embedding_size: Dimensions of an embedding.
        dtype: Floating point type in which they are kept.
        device: ``"auto"`` or a torch device.

    Attributes:
        embeddings: Shape ``(buffer_size, embedding_size)``; rows not yet filled are zero.
        groups: Shape ``(buffer_size,)``, int64.
        items: Shape ``(buffer_size,)``, int64.
        sides: Shape ``(buffer_size,)``, int8: 0 for queries and items without a side, 1 for documents.
        norms: Length of each embedding, shape ``(buffer_size,)``, float32 or wider: losses that compare directions
            need it, and computing it anew in each step would cost as much as reading the whole ring.
        pointer: Where the next row goes, a scalar.
        n_filled: How many rows are filled, a scalar.
        n_refused: How many rows were refused because they were not finite, a scalar.

    Raises:
        ConfigError: A size is not a whole number above zero, or the dtype or the device is none.
        CheckpointError: ``load_state_dict`` is given the state of a ring of another size.

    Example:
        >>> memory = XbmBuffer(buffer_size=3, embedding_size=1)
        >>> ids = torch.arange(4)
        >>> memory.queue(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), groups=ids * 10, items=ids)
        >>> embeddings, groups, items = memory.get()
        >>> groups.tolist(), memory.is_full
        ([10, 20, 30], True)
    """

    embeddings: Tensor
    groups: Tensor
    items: Tensor
    sides: Tensor
    norms: Tensor
    pointer: Tensor
    n_filled: Tensor
    n_refused: Tensor

    def __init__(
        self,
        buffer_size: int,
        embedding_size: int,
        dtype: torch.dtype | str = torch.float32,
        device: str | torch.device = "auto",
    ) -> None:
        super().__init__()
        for name, value in (("buffer_size", buffer_size), ("embedding_size", embedding_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"XbmBuffer: {name} must be a whole number, 1 or more, got {value!r}")
        self.buffer_size = buffer_size
        self.embedding_size = embedding_size
        place = parse_device(device)
        self._stays = place is not None
        self.register_buffer(
            "embeddings", torch.zeros(buffer_size, embedding_size, dtype=parse_dtype(dtype), device=place)
        )
        for name in ("groups", "items"):
            self.register_buffer(name, torch.zeros(buffer_size, dtype=torch.long, device=place))
        self.register_buffer("sides", torch.zeros(buffer_size, dtype=torch.int8, device=place))
        wide = torch.promote_types(parse_dtype(dtype), torch.float32)
        self.register_buffer("norms", torch.zeros(buffer_size, dtype=wide, device=place))
        for name in ("pointer", "n_filled", "n_refused"):
            self.register_buffer(name, torch.zeros((), dtype=torch.long, device=place))
        # Reading a tensor's value makes a GPU wait. A full ring stays full, so the answer is remembered here once it
        # is known, and forgotten whenever the tensors change from outside.
        self._known_full = False
        self.register_load_state_dict_post_hook(_forget_fill)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_complete)  # type: ignore[no-untyped-call]

    @property
    def is_full(self) -> bool:
        """Whether every row is filled, so that the next ones overwrite the oldest."""
        if not self._known_full:
            self._known_full = int(self.n_filled) == self.buffer_size
        return self._known_full

    def __len__(self) -> int:
        return self.buffer_size if self.is_full else int(self.n_filled)

    @torch.no_grad()
    def queue(
        self,
        embeddings: Float[Tensor, "batch dim"],
        groups: Integer[Tensor, " batch"],
        items: Integer[Tensor, " batch"],
        sides: Integer[Tensor, " batch"] | None = None,
    ) -> None:
        """Remember a batch, in place of the oldest rows where the ring is full.

        Rows that are not finite in the ring's dtype are refused and counted: one would spoil every later step. Of a
        batch larger than the ring, the last rows are kept. Nothing here waits for a GPU.

        Args:
            embeddings: Shape ``(batch, embedding_size)``; detached and converted.
            groups: Group of each row, shape ``(batch,)``.
            items: Number of each row's item in the data set, shape ``(batch,)``, by which it is known again.
            sides: 1 for documents, 0 for all others; default: 0. Shape ``(batch,)``.

        Raises:
            DataError: A shape or a dtype is wrong.
        """
        _check_rows(embeddings, groups, items, self.embedding_size)
        if len(embeddings) == 0:
            return
        batch = embeddings.detach().to(self.embeddings)
        norms = torch.linalg.vector_norm(batch, dim=1, dtype=self.norms.dtype)
        rows = {"embeddings": batch, "groups": groups, "items": items, "norms": norms}
        rows["sides"] = self.sides.new_zeros(len(batch)) if sides is None else sides
        # On the CPU a look costs nothing. A length that is not finite may also be one that overflows.
        if batch.device.type == "cpu" and math.isfinite(float(norms.sum())):
            self._write_all(rows)
        else:
            self._write_finite(rows)

    def _write_all(self, rows: dict[str, Tensor]) -> None:
        begin, n_written = int(self.pointer), min(len(rows["items"]), self.buffer_size)
        n_first = min(n_written, self.buffer_size - begin)
        for name, new in rows.items():
            ring, kept = getattr(self, name), new if n_written == len(new) else new[-n_written:]
            if n_first == n_written:
                ring.narrow(0, begin, n_written).copy_(kept)
            else:
                ring[begin:], ring[: n_written - n_first] = kept[:n_first], kept[n_first:]
        self.pointer.fill_((begin + n_written) % self.buffer_size)
        if not self._known_full:
            self.n_filled.add_(n_written).clamp_(max=self.buffer_size)

    def _write_finite(self, rows: dict[str, Tensor]) -> None:
        refused = ~rows["embeddings"].isfinite().all(dim=1)
        n_accepted = len(refused) - refused.sum()
        # The write is a fixed-size window of the ring: how many rows were accepted is known on the device only. The
        # window's places beyond them are written with what they hold already.
        window = torch.arange(min(len(refused), self.buffer_size), device=refused.device)
        accepted_first = refused.to(torch.uint8).argsort(stable=True)
        source = accepted_first[window + (n_accepted - self.buffer_size).clamp(min=0)]
        n_written = n_accepted.clamp(max=self.buffer_size)
        places, is_new = (self.pointer + window) % self.buffer_size, window < n_written
        for name, new in rows.items():
            ring = getattr(self, name)
            _write(ring, places, new.to(ring)[source], is_new)
        self.pointer.add_(n_written).remainder_(self.buffer_size)
        self.n_filled.add_(n_written).clamp_(max=self.buffer_size)
        self.n_refused.add_(refused.sum())

    def clear(self) -> None:
        """Forget all rows; what was refused stays counted."""
        self.pointer.zero_()
        self.n_filled.zero_()
        self._known_full = False

    def get(
        self,
    ) -> tuple[Float[Tensor, "filled dim"], Int64[Tensor, " filled"], Int64[Tensor, " filled"]]:
        """Filled rows, in the ring's order, not by age.

        They are views: the next :meth:`queue` writes into them. A loss over them must be backpropagated first, or
        torch raises an error; so queue a batch before its loss is computed, not between loss and backward.

        Returns:
            ``(embeddings, groups, items)`` of shapes ``(filled, embedding_size)``, ``(filled,)``, ``(filled,)``.
        """
        n_filled = len(self)
        return self.embeddings[:n_filled], self.groups[:n_filled], self.items[:n_filled]

    def rows(self) -> MemoryRows:
        """Filled rows as a loss takes them; views, like those of :meth:`get`."""
        n = len(self)
        rings = (self.embeddings, self.groups, self.items, self.sides, self.norms)
        return MemoryRows(*(rings if n == self.buffer_size else (ring[:n] for ring in rings)))

    def extra_repr(self) -> str:
        """Sizes, as ``print(buffer)`` shows them."""
        return f"buffer_size={self.buffer_size}, embedding_size={self.embedding_size}, dtype={self.embeddings.dtype}"

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> XbmBuffer:
        # Modules are moved and converted by this method of theirs, also as parts of others.
        if not self._stays:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _forget_fill(memory: nn.Module, _: Any) -> None:
    # A module function, given the module: a bound method would tie a deep copy to its original.
    memory._known_full = False  # type: ignore[assignment]


def _complete(memory: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # Checkpoints of before there were sides and norms.
    embeddings = state.get(f"{prefix}embeddings")
    if not isinstance(embeddings, Tensor):
        return
    _check_size(embeddings, memory.embeddings)
    if f"{prefix}norms" in state:
        return
    state[f"{prefix}norms"] = torch.linalg.vector_norm(embeddings.to(memory.norms.dtype), dim=1)
    state[f"{prefix}sides"] = torch.zeros(len(embeddings), dtype=torch.int8)


def _check_size(saved: Tensor, own: Tensor) -> None:
    if saved.shape == own.shape:
        return
    (n_saved, saved_size), (n_own, own_size) = saved.shape, own.shape
    raise CheckpointError(
        f"the cross-batch memory of the checkpoint has buffer_size={n_saved} and embeddings of {saved_size} "
        f"dimensions, this one has buffer_size={n_own} and {own_size} dimensions; build the model with those of the "
        f"checkpoint, or begin a new run from its weights without the memory"
    )


def _write(ring: Tensor, places: Tensor, rows: Tensor, is_new: Tensor) -> None:
    keep = is_new if ring.ndim == 1 else is_new.unsqueeze(1)
    ring.index_copy_(0, places, torch.where(keep, rows, ring[places]))


def _check_rows(embeddings: Tensor, groups: Tensor, items: Tensor, embedding_size: int) -> None:
    if embeddings.ndim != 2 or embeddings.shape[1] != embedding_size or not embeddings.is_floating_point():
        raise DataError(
            f"XbmBuffer: embeddings must be a floating point tensor of shape (batch, {embedding_size}), "
            f"got {embeddings.dtype} of shape {tuple(embeddings.shape)}"
        )
    for name, labels in (("groups", groups), ("items", items)):
        if labels.is_floating_point() or labels.dtype == torch.bool or labels.shape != (len(embeddings),):
            raise DataError(
                f"XbmBuffer: {name} must be an integer tensor of shape ({len(embeddings)},), "
                f"got {labels.dtype} of shape {tuple(labels.shape)}"
            )
