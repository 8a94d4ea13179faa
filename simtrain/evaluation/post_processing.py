"""What is done to embeddings before and after the search of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from simtrain.errors import ConfigError
from simtrain.evaluation.query_expansion import augment_gallery, expand_queries
from simtrain.evaluation.reciprocal_reranking import ReciprocalReranking
from simtrain.evaluation.whitening import Whitening, fit_whitening
from simtrain.metrics.exclusion import Exclude


@dataclass(frozen=True)
class PostProcessing:
    """Steps after encoding; each is off unless asked for. They are done in the order of the attributes.

    Attributes:
        pca: Dimensions to keep of a PCA fitted on the gallery.
        whitening: True fits whitening on the gallery (with ``pca``: of so many dimensions); or one that was fitted on
            another set, see :func:`~simtrain.evaluation.whitening.fit_whitening`.
        database_augmentation: Neighbours that are added to each gallery item.
        query_expansion: Neighbours that are added to each query.
        alpha: Power of the cosine that such a neighbour weighs; 0 weighs all alike.
        reranking: Re-rank by k-reciprocal neighbours.
        k1: Size of the neighbourhoods of the re-ranking.
        k2: Neighbours whose sets are averaged in it.
        lambda_value: Weight of the original distance in it.

    Raises:
        ConfigError: A setting is out of range, or ``pca`` is given beside a fitted whitening.

    Example:
        >>> import torch
        >>> gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> queries, _ = PostProcessing(pca=1).embeddings(torch.eye(2), gallery * torch.tensor([2.0, 1.0]))
        >>> queries.shape
        torch.Size([2, 1])
    """

    pca: int | None = None
    whitening: bool | Whitening = False
    database_augmentation: int = 0
    query_expansion: int = 0
    alpha: float | int = 3.0
    reranking: bool = False
    k1: int = 20
    k2: int = 6
    lambda_value: float | int = 0.3

    def __post_init__(self) -> None:
        for word in ("database_augmentation", "query_expansion", "alpha"):
            if getattr(self, word) < 0:
                raise ConfigError(f"{word} should be at least 0, got {getattr(self, word)}")
        for word in ("k1", "k2"):
            if getattr(self, word) < 1:
                raise ConfigError(f"{word} should be at least 1, got {getattr(self, word)}")
        if self.pca is not None and self.pca < 1:
            raise ConfigError(f"pca should be at least 1 dimension, got {self.pca}")
        if self.pca is not None and isinstance(self.whitening, Whitening):
            raise ConfigError("a fitted whitening has its dimensions already: leave pca out, or pass whitening=True")
        if not 0 <= self.lambda_value <= 1:
            raise ConfigError(f"lambda_value should be from 0 to 1, got {self.lambda_value}")

    def embeddings(
        self,
        queries: Float[Tensor, "queries dim"],
        gallery: Float[Tensor, "gallery dim"] | None = None,
        exclude: Exclude | None = None,
    ) -> tuple[Float[Tensor, "queries kept"], Float[Tensor, "gallery kept"] | None]:
        """Queries and gallery after the steps that change embeddings.

        Args:
            queries: Shape ``(queries, dim)``.
            gallery: Shape ``(gallery, dim)``; None where the queries are searched among themselves.
            exclude: Gallery items that a query must not see, as in the search.
        """
        transform = self._transform(queries if gallery is None else gallery)
        if transform is not None:
            queries, gallery = transform(queries), None if gallery is None else transform(gallery)
        if gallery is None:
            return self._alone(queries), None
        if self.database_augmentation:
            gallery = augment_gallery(gallery, self.database_augmentation, self.alpha)
        if self.query_expansion:
            queries = expand_queries(queries, gallery, self.query_expansion, self.alpha, exclude=exclude)
        return queries, gallery

    def reranker(
        self, queries: Tensor, gallery: Tensor | None, show_progress: bool | None = None
    ) -> ReciprocalReranking:
        """What gives the final distances of changed embeddings, where :attr:`reranking` is asked for."""
        words = {"show_progress": show_progress}
        return ReciprocalReranking(queries, gallery, self.k1, self.k2, self.lambda_value, **words)

    def _transform(self, gallery: Tensor) -> Whitening | None:
        if isinstance(self.whitening, Whitening):
            return self.whitening
        if self.pca is None and not self.whitening:
            return None
        return fit_whitening(gallery, self.pca, whiten=self.whitening)

    def _alone(self, items: Tensor) -> Tensor:
        # Every item is in the gallery and a query, so that both steps are one.
        for k in (self.database_augmentation, self.query_expansion):
            if k:
                items = augment_gallery(items, k, self.alpha)
        return items
