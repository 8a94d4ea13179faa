"""Scores of embeddings against class weights, and the cross entropy over them.

These two functions are all that has to know every class: a version that holds a share of the classes on each rank
(partial FC) replaces them, and no loss.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from simtrain.errors import DataError
from simtrain.losses.batch_checks import check_embeddings
from simtrain.losses.distances import Distance, similarity_matrix


def class_similarities(
    embeddings: Float[Tensor, "batch dim"],
    weights: Float[Tensor, "groups dim"] | Float[Tensor, "groups centers dim"],
    distance: str = Distance.COSINE,
) -> Float[Tensor, "batch groups"]:
    """Similarity of each embedding to each class.

    Args:
        embeddings: Shape ``(batch, dim)``.
        weights: One vector a class, shape ``(groups, dim)``, or several, shape ``(groups, centers, dim)``, of which
            the most similar counts.
        distance: One of :class:`~simtrain.losses.Distance`.

    Returns:
        Shape ``(batch, groups)``, float32 or wider, also under autocast.

    Example:
        >>> centers = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
        >>> class_similarities(torch.tensor([[-2.0, 0.0]]), centers)
        tensor([[1., 0.]])
    """
    similarities = similarity_matrix(embeddings, weights.flatten(0, -2), distance)
    if weights.ndim == 2:
        return similarities
    return similarities.view(len(embeddings), *weights.shape[:2]).max(dim=2).values


def cross_entropy_terms(
    logits: Float[Tensor, "batch groups"], groups: Integer[Tensor, " batch"], label_smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """Cross entropy of each row against its class.

    Args:
        logits: Shape ``(batch, groups)``.
        groups: Class of each row, shape ``(batch,)``.
        label_smoothing: Share of the target that is spread evenly over all classes.

    Returns:
        Shape ``(batch,)``.

    Example:
        >>> cross_entropy_terms(torch.zeros(1, 4), torch.tensor([2]))  # log 4
        tensor([1.3863])
    """
    # Not torch's own: for it, a group of -100 means "leave this row out".
    target = logits.gather(1, groups.long().unsqueeze(1)).squeeze(1)
    if label_smoothing:
        target = torch.lerp(target, logits.mean(dim=1), label_smoothing)
    return logits.logsumexp(dim=1) - target


def class_mask(groups: Integer[Tensor, " batch"], num_groups: int) -> Tensor:
    """True where a column is the row's own class, shape ``(batch, num_groups)``.

    Example:
        >>> class_mask(torch.tensor([2, 0]), 3).int().tolist()
        [[0, 0, 1], [1, 0, 0]]
    """
    mask = torch.zeros(len(groups), num_groups, dtype=torch.bool, device=groups.device)
    return mask.scatter_(1, groups.long().unsqueeze(1), True)


def check_class_numbers(owner: str, groups: Tensor, num_groups: int) -> None:
    """Refuse groups that have no class weight, where looking costs nothing; on a GPU, indexing has its own assertion.

    Raises:
        DataError: A group is outside of ``0 .. num_groups - 1``.

    Example:
        >>> check_class_numbers("ArcFaceLoss", torch.tensor([0, 3]), 3)
        Traceback (most recent call last):
        ...
        simtrain.errors.DataError: ArcFaceLoss has class weights for the groups 0 to 2, got the group 3; ...
    """
    if groups.device.type != "cpu" or groups.numel() == 0:
        return
    low, high = int(groups.min()), int(groups.max())
    if low < 0 or high >= num_groups:
        raise DataError(
            f"{owner} has class weights for the groups 0 to {num_groups - 1}, got the group "
            f"{low if low < 0 else high}; set num_groups to the number of groups of the training data, and number "
            f"them from 0 on (SimilarityGroupDataset does it for text labels, and for integers with label_names)"
        )


def check_size(embeddings: Any, embedding_size: int, owner: str) -> None:
    """Refuse embeddings of another size than the class weights have.

    Raises:
        DataError: They are no matrix, or have another number of columns.
    """
    check_embeddings(embeddings)
    if embeddings.shape[1] != embedding_size:
        raise DataError(
            f"{owner} was built for embeddings of {embedding_size} dimensions, got {embeddings.shape[1]}; set "
            f"embedding_size to the output size of the model's head"
        )
