"""A model as mteb takes it: the benchmarks of MTEB with one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simtrain.cache import CachedModel
from simtrain.cache.fingerprint import callable_fingerprint, encoder_fingerprint
from simtrain.data.sides import SIDE
from simtrain.errors import ConfigError, DataError, import_extra
from simtrain.models import SimilarityModel

MODALITIES = ("text", "image", "audio", "video")


def as_mteb(
    model: SimilarityModel | CachedModel,
    name: str = "simtrain/model",
    *,
    revision: str | None = None,
    batch_size: int | None = None,
) -> MtebEncoder:
    """Make a model an encoder of mteb 2.x: ``mteb.evaluate(as_mteb(model), tasks)``.

    What mteb searches with is encoded as queries, what it searches in as documents: with the prompts, encoders and
    heads of these sides, where the model has sides. Texts of tasks without sides (classification, clustering,
    similarity) are encoded without a side, and as queries by a model that has a head for each. Similarity is the
    cosine. mteb's own prompts and instructions are not used: a model brings its own.

    Args:
        model: The model.
        name: Its name in mteb's results, ``organization/name``.
        revision: Version of the model in mteb's results. mteb returns the results that it has stored for a name and a
            revision, so the default is a fingerprint of the model's code and weights.
        batch_size: Items a batch while encoding; default: as mteb asks, else 32.

    Returns:
        The encoder; ``encode``, ``similarity``, ``similarity_pairwise`` and ``mteb_model_meta`` are mteb's.

    Raises:
        ConfigError: The name is not of the form ``organization/name``.
        MissingExtraError: mteb is not installed (once it is asked for its description of the model).

    Example:
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> encoder = as_mteb(SimilarityModel(PrecomputedEncoder(2), EmptyHead(2)), "me/tiny")
        >>> encoder.similarity([[1.0, 0.0]], [[3.0, 4.0]])
        tensor([[0.6000]])
    """
    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError(f"mteb knows models as 'organization/name', got {name!r}")
    return MtebEncoder(model, name, revision, batch_size)


class MtebEncoder:
    """The interface that mteb 2.x asks of an encoder; see :func:`as_mteb`."""

    def __init__(
        self,
        model: SimilarityModel | CachedModel,
        name: str = "simtrain/model",
        revision: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.model = model
        self.name = name
        self.batch_size = batch_size
        self._plain = model.model if isinstance(model, CachedModel) else model
        self._revision = revision

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Embed what mteb hands over: batches with the items of one modality.

        Args:
            inputs: Batches, with texts under ``"text"`` or images under ``"image"``.
            task_metadata: Not looked at, as are ``hf_split`` and ``hf_subset``.
            hf_split: See above.
            hf_subset: See above.
            prompt_type: ``"query"``, ``"document"`` or None, for items without a side.
            kwargs: ``batch_size`` and ``show_progress_bar`` are heeded.

        Returns:
            float32, shape ``(items, embedding_size)``.

        Raises:
            DataError: A batch holds items of several modalities, or none that is known.
        """
        items = [item for batch in inputs for item in _items(batch)]
        options: dict[str, Any] = {"batch_size": self.batch_size or kwargs.get("batch_size") or 32}
        options["show_progress"] = None if kwargs.get("show_progress_bar") else False
        side = str(getattr(prompt_type, "value", prompt_type))
        by_side = {"query": self.model.encode_query, "document": self.model.encode_document}
        encode = by_side.get(side, self.model.encode_query if self._needs_side else self.model.encode)
        return np.asarray(encode(items, **options), dtype=np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of each of the first with each of the second, shape ``(n, m)``."""
        first, second = _unit(embeddings1), _unit(embeddings2)
        return first @ second.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of each of the first with its counterpart, shape ``(n,)``."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=1)

    @cached_property
    def mteb_model_meta(self) -> Any:
        """What mteb wants to know of the model."""
        meta = import_extra("mteb.models.model_meta", "bench")
        known = {
            "name": self.name,
            "revision": self.revision,
            "embed_dim": self._plain.embedding_size,
            "n_parameters": sum(weight.numel() for weight in self._plain.parameters()),
            "similarity_fn_name": meta.ScoringFunction.COSINE,
            "framework": ["PyTorch"],
        }
        return meta.ModelMeta.create_empty(known)

    @cached_property
    def revision(self) -> str:
        """Version of the model: as given, or a fingerprint of its code and weights."""
        if self._revision is not None:
            return self._revision
        parts = {name: encoder_fingerprint(encoder) for name, encoder in sorted(self._plain.encoders.items())}
        return "-".join([*(digest[:16] for digest in parts.values()), callable_fingerprint(self._plain.head)[:16]])

    @property
    def _needs_side(self) -> bool:
        """Whether the head has a part for each side, so that nothing is encoded without one."""
        return SIDE in getattr(self._plain.head, "meta_names", {})


def _items(batch: Mapping[str, Any]) -> list[Any]:
    there = [name for name in MODALITIES if name in batch]
    if len(there) != 1:
        found = " and ".join(there) or f"only {', '.join(map(repr, batch))}"
        raise DataError(f"a model encodes items of one modality of {', '.join(MODALITIES)}; mteb's batch has {found}")
    return list(batch[there[0]])


def _unit(embeddings: Any) -> torch.Tensor:
    vectors = torch.as_tensor(embeddings)
    vectors = vectors.reshape(-1, vectors.shape[-1])
    return torch.nn.functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1)
