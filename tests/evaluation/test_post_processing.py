"""Each step against the formulas of its paper, written out item by item."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from simtrain import evaluate
from simtrain.data import QueryGallery, SimilarityGroupSample, SimilarityPairSample
from simtrain.encoders import PrecomputedEncoder
from simtrain.errors import ConfigError, DataError
from simtrain.evaluation import (
    PostProcessing,
    ReciprocalReranking,
    augment_gallery,
    expand_queries,
    fit_whitening,
    retrieval_task,
)
from simtrain.evaluation.matrix_scores import matrix_scores
from simtrain.evaluation.reciprocal_reranking import reranked
from simtrain.heads import EmptyHead
from simtrain.metrics import retrieval_scores
from simtrain.models import SimilarityModel


def unit(rows):
    return np.array([row / np.linalg.norm(row) for row in np.asarray(rows, dtype=np.float64)])


def expanded(queries, gallery, k, alpha, own=None):
    queries, gallery, result = unit(queries), unit(gallery), []
    for number, query in enumerate(queries):
        order = [item for item in np.argsort(-(gallery @ query), kind="stable") if own is None or item != number][:k]
        weights = [
            max(0.0, float(gallery[item] @ query)) ** alpha if gallery[item] @ query > 0 else 0 for item in order
        ]
        total = query + sum(weight * gallery[item] for weight, item in zip(weights, order, strict=True))
        result.append(total)
    return unit(result)


@pytest.mark.parametrize("alpha", [0, 1.0, 3])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_alpha_query_expansion_and_database_augmentation_are_their_sums(k, alpha):
    queries, gallery = torch.randn(7, 5), torch.randn(20, 5)
    given = expand_queries(queries, gallery, k, alpha)
    np.testing.assert_allclose(given.numpy(), expanded(queries.numpy(), gallery.numpy(), k, alpha), atol=1e-5)
    given = augment_gallery(gallery, k, alpha)
    np.testing.assert_allclose(given.numpy(), expanded(gallery.numpy(), gallery.numpy(), k, alpha, own=True), atol=1e-5)


def test_an_expansion_does_not_see_what_the_search_leaves_out():
    queries, gallery = torch.randn(4, 3), torch.randn(9, 3)
    hidden = torch.zeros(4, 9, dtype=torch.bool)
    hidden[:, 4:] = True
    without = expand_queries(queries, gallery[:4], 3)
    torch.testing.assert_close(expand_queries(queries, gallery, 3, exclude=hidden), without)


def test_whitening_and_pca_are_those_of_scikit_learn():
    rows, others = torch.randn(60, 6) @ torch.randn(6, 6) + 3, torch.randn(9, 6)
    for whiten in (True, False):
        reference = PCA(4, whiten=whiten).fit(rows.double().numpy())
        expected = unit(reference.transform(others.double().numpy()))
        given = fit_whitening(rows, 4, whiten=whiten)(others).double().numpy()
        signs = np.sign((given * expected).sum(axis=0))
        np.testing.assert_allclose(given * signs, expected, atol=1e-4)


def test_whitened_rows_have_the_identity_as_covariance_also_without_any_variance():
    rows = torch.randn(200, 3) @ torch.diag(torch.tensor([5.0, 1.0, 0.1]))
    fitted = fit_whitening(rows, eps=0)
    projected = (rows.double() - fitted.mean) @ fitted.projection
    torch.testing.assert_close(projected.T @ projected / 200, torch.eye(3).double(), atol=1e-6, rtol=0)
    flat = fit_whitening(torch.ones(5, 2))(torch.ones(2, 2))
    assert bool((flat == 0).all())
    thin = fit_whitening(torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))(torch.tensor([[5.0, 0.0]]))
    assert bool(thin.isfinite().all())


def test_what_whitening_cannot_be_fitted_on():
    with pytest.raises(ConfigError, match="dim should be from 1 to the 3 dimensions of the embeddings, got 4"):
        fit_whitening(torch.randn(5, 3), 4)
    with pytest.raises(ConfigError, match="eps should be at least 0"):
        fit_whitening(torch.randn(5, 3), eps=-1)
    with pytest.raises(DataError, match="whitening needs two rows at least to fit on, got 1"):
        fit_whitening(torch.randn(1, 3))
    with pytest.raises(DataError, match="the whitening was fitted on 3 dimensions, the rows have 2"):
        fit_whitening(torch.randn(5, 3))(torch.randn(2, 2))
    with pytest.raises(ConfigError, match="alpha should be at least 0"):
        expand_queries(torch.eye(2), torch.eye(2), alpha=-1)


def reciprocal_distances(queries, gallery, k1, k2, weight):
    """Zhong et al. 2017, sections 3.2 to 3.5, with sets and dense vectors."""
    rows = unit(np.concatenate([queries, gallery]))
    n = len(rows)
    squared = np.array([[float(((a - b) ** 2).sum()) for b in rows] for a in rows])
    distance = squared / squared.max(axis=1, keepdims=True)
    ranked = [[i, *(j for j in np.argsort(squared[i], kind="stable") if j != i)] for i in range(n)]

    def reciprocal(i, k):
        return {j for j in ranked[i][: k + 1] if i in ranked[j][: k + 1]}

    vectors = np.zeros((n, n))
    for i in range(n):
        own = reciprocal(i, k1)
        grown = set(own)
        for candidate in own:
            theirs = reciprocal(candidate, round(k1 / 2))
            if len(theirs & own) > 2 / 3 * len(theirs):
                grown |= theirs
        for j in grown:
            vectors[i, j] = math.exp(-distance[i, j])
        vectors[i] /= vectors[i].sum()
    vectors = np.array([np.mean([vectors[j] for j in ranked[i][:k2]], axis=0) for i in range(n)])
    first = len(queries)
    result = np.empty((first, len(gallery)))
    for q in range(first):
        for g in range(len(gallery)):
            smaller = np.minimum(vectors[q], vectors[first + g]).sum()
            larger = np.maximum(vectors[q], vectors[first + g]).sum()
            result[q, g] = weight * distance[q, first + g] + (1 - weight) * (1 - smaller / larger)
    return result


@pytest.mark.parametrize(("k1", "k2", "weight"), [(6, 3, 0.3), (3, 1, 0.0), (5, 4, 1.0), (50, 6, 0.5)])
def test_reciprocal_reranking_is_that_of_the_paper(k1, k2, weight):
    queries, gallery = torch.randn(8, 3), torch.randn(17, 3)
    given = ReciprocalReranking(queries, gallery, k1, k2, weight).distances(torch.arange(8))
    expected = reciprocal_distances(queries.double().numpy(), gallery.double().numpy(), k1, k2, weight)
    np.testing.assert_allclose(given.numpy(), expected, atol=2e-5)


def test_settings_out_of_range_are_told(without_type_checks):
    for words, message in (
        ({"k1": 0}, "k1 should be at least 1, got 0"),
        ({"lambda_value": 2}, "lambda_value should be from 0 to 1, got 2"),
        ({"query_expansion": -1}, "query_expansion should be at least 0"),
        ({"pca": 0}, "pca should be at least 1 dimension, got 0"),
        ({"pca": 2, "whitening": fit_whitening(torch.randn(5, 3))}, "a fitted whitening has its dimensions already"),
    ):
        with pytest.raises(ConfigError, match=message):
            PostProcessing(**words)
    with pytest.raises(DataError, match="queries have 3 dimensions, the gallery has 2"):
        ReciprocalReranking(torch.eye(3), torch.eye(2))
    with pytest.raises(DataError, match="expanded by gallery items, and the gallery is empty"):
        expand_queries(torch.eye(2), torch.empty(0, 2))
    with pytest.raises(ConfigError, match="k1 and k2 should be at least 1, got k1=0"):
        ReciprocalReranking(torch.eye(2), k1=0)
    with pytest.raises(ConfigError, match="lambda_value should be from 0 to 1"):
        ReciprocalReranking(torch.eye(2), lambda_value=-1)


def test_figures_of_a_score_matrix_are_those_of_the_same_embeddings():
    queries, gallery = torch.randn(9, 4).double(), torch.randn(30, 4).double()
    labels, others = torch.arange(9) % 4, torch.arange(30) % 5
    hidden = torch.rand(9, 30) < 0.3
    expected = retrieval_scores(queries, labels, gallery, others, k=(1, 5), exclude=hidden, distance="dot")
    numbers = torch.arange(9)
    given = matrix_scores(
        [(part, queries[part] @ gallery.T) for part in numbers.split(4)],
        *(9, 30, (5, 1)),
        query_labels=labels,
        gallery_labels=others,
        exclude=lambda rows, columns: hidden[rows][:, columns],
    )
    assert given.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(given[name], values)
    with pytest.raises(DataError, match="the scores of query 0 hold NaN"):
        matrix_scores([(torch.tensor([0]), torch.tensor([[math.nan]]))], 1, 1, relevant=[[0]])
    with pytest.raises(ConfigError, match="relevance is not known"):
        matrix_scores([], 1, 1)


def test_a_long_re_ranking_tells_how_far_it_is(capsys):
    points = torch.randn(300, 3)
    model = ReciprocalReranking(points, k1=3, k2=1, show_progress=True)
    list(reranked(model))
    told = capsys.readouterr().err
    assert "comparing neighbours: " in told
    assert "re-ranking: 256 of 300" in told
    list(reranked(ReciprocalReranking(points, k1=3, k2=1, show_progress=False)))
    assert capsys.readouterr().err == ""


MODEL = SimilarityModel(PrecomputedEncoder(4), EmptyHead(4))


def points(n):
    return [tuple(row) for row in torch.randn(n, 4, generator=torch.Generator().manual_seed(1)).tolist()]


TESTS = {
    "groups": [SimilarityGroupSample(point, number % 5) for number, point in enumerate(points(30))],
    "pairs": [
        SimilarityPairSample(point, other) for point, other in zip(points(40)[:20], points(40)[20:], strict=True)
    ],
    "gallery": QueryGallery(
        points(8), points(30), [n % 5 for n in range(8)], [n % 5 for n in range(30)], list(range(8)), list(range(30))
    ),
}


@pytest.mark.parametrize("kind", TESTS)
def test_every_step_is_an_option_of_evaluate(kind):
    task, plain = retrieval_task(TESTS[kind]), evaluate(MODEL, TESTS[kind])
    queries = torch.tensor(task.queries)
    gallery = None if task.gallery is None else torch.tensor(task.gallery)
    transform = fit_whitening(queries if gallery is None else gallery, 3)
    moved = transform(queries), None if gallery is None else transform(gallery)
    assert evaluate(MODEL, TESTS[kind], post=PostProcessing()).metrics == plain.metrics
    whitened = evaluate(MODEL, TESTS[kind], post=PostProcessing(pca=3, whitening=True)).metrics
    assert whitened == pytest.approx(task.score(*moved).metrics)
    assert evaluate(MODEL, TESTS[kind], post=PostProcessing(whitening=transform)).metrics == pytest.approx(whitened)
    if gallery is None:
        steps = augment_gallery(augment_gallery(queries, 2, 1), 3, 1), None
    else:
        gallery = augment_gallery(gallery, 2, 1)
        steps = expand_queries(queries, gallery, 3, 1, exclude=task.exclude), gallery
    post = PostProcessing(database_augmentation=2, query_expansion=3, alpha=1)
    assert evaluate(MODEL, TESTS[kind], post=post).metrics == pytest.approx(task.score(*steps).metrics)
    # With all weight on the original distance, re-ranking changes nothing.
    same = evaluate(MODEL, TESTS[kind], post=PostProcessing(reranking=True, lambda_value=1.0))
    assert same.metrics == pytest.approx(plain.metrics)
    assert same.n_gallery == plain.n_gallery
    assert evaluate(MODEL, TESTS[kind], post=PostProcessing(reranking=True, k1=4)).metrics != plain.metrics


def test_mixed_precision_does_not_reach_a_re_ranking():
    points = torch.randn(30, 16, generator=torch.Generator().manual_seed(0))
    plain = ReciprocalReranking(points, k1=5, k2=2).distances(torch.arange(30))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ReciprocalReranking(points, k1=5, k2=2).distances(torch.arange(30)).equal(plain)
