"""Distillation from a teacher's embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from simtrain import registry
from simtrain.data.batches import layout_of
from simtrain.data.sides import QUERY
from simtrain.errors import ConfigError, DataError
from simtrain.losses.batch_checks import check_embeddings, check_labels, check_rows
from simtrain.losses.candidate_loss import zero_loss
from simtrain.losses.distances import similarity_matrix
from simtrain.losses.log_sums import masked_mean
from simtrain.losses.score_distillation import list_divergence
from simtrain.losses.settings import check_choice, check_positive
from simtrain.losses.similarity_loss import SimilarityLoss

_FORMS = ("kl", "mse")


def teacher_embeddings(teacher: Any, samples: Any, **options: Any) -> Float[Tensor, "items dim"]:
    """Embed all items of a data set with a teacher, in the order of their item numbers.

    Args:
        teacher: A :class:`simtrain.SimilarityModel`; queries and documents go through its own sides.
        samples: The training data set, or all of its samples in their order.
        **options: What :meth:`SimilarityModel.encode` takes: ``batch_size``, ``show_progress`` and so on.

    Returns:
        Shape ``(items, teacher's embedding_size)``, on the CPU: the items of groups; all first objects of pairs, then
        all second ones; of triplets anchors, positives, negatives. Save it with ``numpy.save`` to name it in a config.

    Example:
        >>> from simtrain.data import SimilarityPairSample
        >>> from simtrain.encoders import PrecomputedEncoder
        >>> from simtrain.heads import EmptyHead
        >>> from simtrain.models import SimilarityModel
        >>> teacher = SimilarityModel(PrecomputedEncoder(1), EmptyHead(1))
        >>> teacher_embeddings(teacher, [SimilarityPairSample([1.0], [2.0]), SimilarityPairSample([3.0], [4.0])]).T
        tensor([[1., 3., 2., 4.]])
    """
    listed = [samples[i] for i in range(len(samples))] if hasattr(samples, "__getitem__") else list(samples)
    layout = layout_of(listed)
    objects, sides = layout.objects(listed), layout.sides(listed)
    if sides is None or not teacher.has_sides:
        return _cpu(teacher.encode(objects, to_numpy=False, **options))
    # The queries stand before the documents.
    n_queries = sides.count(QUERY)
    asked = teacher.encode_query(objects[:n_queries], to_numpy=False, **options)
    found = teacher.encode_document(objects[n_queries:], to_numpy=False, **options)
    return torch.cat([_cpu(asked), _cpu(found)])


def divergence_terms(
    embeddings: Float[Tensor, "rows dim"],
    teacher: Float[Tensor, "rows teacher_dim"],
    *,
    temperature: float = 0.05,
    teacher_temperature: float = 0.05,
) -> Float[Tensor, " rows"]:
    """``KL(teacher || model)`` of each row's similarities to the other rows, as distributions.

    Args:
        embeddings: Shape ``(rows, dim)``, two rows or more.
        teacher: The teacher's embeddings of the same items, shape ``(rows, teacher_dim)``.
        temperature: Divisor of the model's cosines.
        teacher_temperature: Divisor of the teacher's cosines.

    Example:
        >>> divergence_terms(torch.eye(3), torch.eye(3))
        tensor([0., 0., 0.])
    """
    others = ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    wanted = similarity_matrix(teacher, teacher) / teacher_temperature
    return list_divergence(similarity_matrix(embeddings, embeddings) / temperature, wanted, others)


@registry.losses.register_module()
class SimilarityDistillationLoss(SimilarityLoss):
    """The items of a batch are to be as similar to each other as they are for a teacher.

    The teacher's embeddings come from ``teacher``, a table of all training items, which the batch's item numbers look
    up; its size may differ from the model's. Or each batch brings them, as the target ``"teacher"`` that a data
    preprocessor of your own adds, and no table is given. The table is in no checkpoint. In eval mode a loss with a
    table is zero: item numbers of validation data are others.

    Args:
        teacher: Shape ``(items, dim)``, in the order of the training data set, as :func:`teacher_embeddings` gives it;
            or the path of a ``.npy`` file of it. Default: in each batch.
        form: ``"kl"``: the divergence of the distributions of each item's similarities to the others; ``"mse"``: the
            mean squared difference of cosines.
        temperature: Divisor of the model's cosines, for ``"kl"``.
        teacher_temperature: Divisor of the teacher's cosines, for ``"kl"``.

    Raises:
        ConfigError: A setting is not one of the above, or the file cannot be read.

    Reference:
        ``"kl"``: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018,
        https://arxiv.org/abs/1803.10837; with temperatures: Fang et al., "SEED", ICLR 2021,
        https://arxiv.org/abs/2101.04731. ``"mse"``: Tung and Mori, "Similarity-Preserving Knowledge Distillation",
        ICCV 2019, https://arxiv.org/abs/1907.09682, on cosines.

    Example:
        >>> loss = SimilarityDistillationLoss(teacher=torch.eye(4), form="mse")
        >>> loss.target_names, loss(torch.tensor([[1.0], [1.0]]), torch.tensor([3, 0]))
        (('items',), tensor(1.))
    """

    teacher: Tensor | None

    def __init__(
        self,
        teacher: Float[Tensor, "items dim"] | str | Path | None = None,
        form: str = "kl",
        temperature: float | int = 0.05,
        teacher_temperature: float | int = 0.05,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.form = check_choice(owner, "form", form, _FORMS)
        self.temperature = check_positive(owner, "temperature", temperature)
        self.teacher_temperature = check_positive(owner, "teacher_temperature", teacher_temperature)
        self._path = str(teacher) if isinstance(teacher, (str, Path)) else None
        self.register_buffer("teacher", _table(teacher), persistent=False)

    @property
    def target_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """``("items",)`` with a table, ``("teacher",)`` without."""
        return ("teacher",) if self.teacher is None else ("items",)

    def get_config_dict(self) -> dict[str, Any]:
        """Constructor arguments as JSON values; a table that came from no file is left out (None)."""
        return {
            "teacher": self._path,
            "form": self.form,
            "temperature": self.temperature,
            "teacher_temperature": self.teacher_temperature,
        }

    def forward(self, embeddings: Float[Tensor, "rows dim"], target: Tensor) -> Float[Tensor, ""]:
        """Loss of a batch.

        Args:
            embeddings: Shape ``(rows, dim)``.
            target: Item numbers, shape ``(rows,)``, int64; without a table, the teacher's embeddings, shape
                ``(rows, teacher_dim)``.

        Raises:
            DataError: A shape or a dtype is wrong, or (seen on the CPU only) an item is not in the table.
        """
        check_embeddings(embeddings)
        has_table = self.teacher is not None
        # With two rows, each has one other: a distribution that cannot be wrong.
        fewest = 3 if self.form == "kl" else 2
        if len(embeddings) < fewest or (has_table and not self.training):
            self.note(n_active=0)
            return zero_loss(embeddings)
        teacher = self._looked_up(target, len(embeddings)) if has_table else _checked(target, len(embeddings))
        if self.form == "kl":
            temperatures = {"temperature": self.temperature, "teacher_temperature": self.teacher_temperature}
            terms = divergence_terms(embeddings, teacher, **temperatures)
            self.note(n_active=terms.count_nonzero())
            return terms.mean()
        others = ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
        gaps = (similarity_matrix(embeddings, embeddings) - similarity_matrix(teacher, teacher)).masked_fill(~others, 0)
        self.note(n_active=gaps.detach().any(dim=1).sum())
        return masked_mean(gaps.square(), others)

    def _looked_up(self, items: Tensor, n_rows: int) -> Tensor:
        assert self.teacher is not None
        check_labels(items, n_rows, "items", "embeddings")
        check_rows(items, len(self.teacher), "items", "the teacher's table")
        return self.teacher[items]


def _checked(teacher: Tensor, n_rows: int) -> Tensor:
    check_embeddings(teacher, "the teacher's embeddings")
    if len(teacher) != n_rows:
        raise DataError(f"the teacher's embeddings must be one for each of {n_rows} embeddings, got {len(teacher)}")
    return teacher.detach()


def _table(teacher: Any) -> Tensor | None:
    if isinstance(teacher, (str, Path)):
        try:
            teacher = torch.from_numpy(np.load(teacher, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise ConfigError(f"the teacher's embeddings cannot be read from {str(teacher)!r}: {error}") from error
    if teacher is None:
        return None
    check_embeddings(teacher, "teacher")
    table: Tensor = teacher.detach()
    return table


def _cpu(embeddings: Tensor) -> Tensor:
    return embeddings.detach().cpu()
