from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrain.errors import ConfigError, DataError
from simtrain.metrics import Alignment, EffectiveRank, Uniformity, alignment, effective_rank, uniformity
from simtrain.metrics import geometry as room


def unit(points: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(points.double())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 70), dim=st.integers(1, 9), factor=st.sampled_from([0.5, 2, 3]))
def test_figures_equal_their_formulas(seed, n, dim, factor):
    generator = torch.Generator().manual_seed(seed)
    points, others = torch.randn(2, n, dim, generator=generator, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "CHUNK", 16)
        spread = uniformity(points, factor)
    first, second = torch.triu_indices(n, n, 1)
    gaps = (unit(points)[first] - unit(points)[second]).norm(dim=1)
    assert spread == pytest.approx(float(gaps.square().mul(-factor).exp().mean().log()), abs=1e-9)
    expected = (unit(points) - unit(others)).norm(dim=1).pow(factor).mean()
    assert alignment(points, others, factor) == pytest.approx(float(expected), abs=1e-9)
    for center in (False, True):
        moved = points - points.mean(dim=0) if center else points
        shares = torch.linalg.svdvals(moved)
        shares = shares / shares.sum()
        shares = shares[shares > 1e-7]
        entropy = float(-(shares * shares.log()).sum())
        assert effective_rank(points, center) == pytest.approx(math.exp(entropy), rel=1e-4)
    assert uniformity(points.float(), factor) == pytest.approx(spread, abs=1e-5)
    assert uniformity(points.numpy(), factor) == pytest.approx(spread, abs=1e-9)


def test_collapsed_spread_and_far_embeddings():
    assert uniformity(torch.ones(50, 3)) == pytest.approx(0.0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0], [-1.0]]), t=1000) == -math.inf
    assert uniformity(torch.zeros(5, 3)) == 0.0, "rows of zeros lie at one place"
    assert uniformity(torch.tensor([[0.0, 0.0], [5.0, 0.0]])) == pytest.approx(-2.0), "at distance 1 of any unit row"
    assert effective_rank(torch.ones(50, 3)) == pytest.approx(1.0, abs=1e-6)
    assert effective_rank(torch.ones(50, 3), center=True) == 0.0
    assert effective_rank(torch.zeros(5, 3)) == 0.0
    assert effective_rank(torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))) > 7.9
    assert alignment(torch.eye(3), 7 * torch.eye(3)) == 0.0


def test_wrong_input_is_refused():
    points = torch.randn(3, 2)
    for call, error, message in (
        (lambda: alignment(points, points[:2]), DataError, "each row needs its match"),
        (lambda: alignment(points[:0], points[:0]), DataError, "each row needs its match"),
        (lambda: alignment(points, points, 0), ConfigError, "alpha is a number above 0, got 0"),
        (lambda: Alignment(-1), ConfigError, "alpha is a number above 0, got -1"),
        (lambda: uniformity(points[:1]), DataError, "two are needed, got 1"),
        (lambda: uniformity(points, -1), ConfigError, "t is a number above 0, got -1"),
        (lambda: Uniformity(0), ConfigError, "t is a number above 0, got 0"),
        (lambda: uniformity(points * math.nan), DataError, "row 0 of the embeddings holds NaN"),
        (lambda: effective_rank(points[:0]), DataError, "give some embeddings"),
        (lambda: EffectiveRank(0), ConfigError, "embedding_size is a positive integer, got 0"),
        (lambda: EffectiveRank(3).update(points), DataError, "2 dimensions, not embedding_size=3"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_a_long_comparison_tells_how_far_it_is(capsys):
    uniformity(torch.randn(600, 3), show_progress=True)
    assert "comparing rows: " in capsys.readouterr().err
    uniformity(torch.randn(600, 3), show_progress=False)
    assert capsys.readouterr().err == ""


def test_batches_add_up():
    torch.manual_seed(0)
    batches = [(torch.randn(size, 4), torch.randint(3, (size,))) for size in (40, 9, 1)]
    near, spread, rank = Alignment(alpha=1), Uniformity(t=3), EffectiveRank(4)
    for metric in (near, spread, rank):
        metric.update(torch.zeros(1, 4), torch.tensor([0]))
    assert [float(metric.compute()) for metric in (near, spread, rank)] == [0.0, 0.0, 0.0]
    gaps, potentials = [], []
    for points, groups in batches:
        for metric in (near, spread, rank):
            metric.update(points, groups)
        first, second = torch.triu_indices(len(points), len(points), 1)
        apart = (unit(points)[first] - unit(points)[second]).norm(dim=1)
        gaps.append(apart[groups[first] == groups[second]])
        potentials.append(apart.square().mul(-3).exp())
    assert float(near.compute()) == pytest.approx(float(torch.cat(gaps).mean()), rel=1e-6)
    assert float(spread.compute()) == pytest.approx(float(torch.cat(potentials).mean().log()), rel=1e-5)
    assert float(rank.compute()) == pytest.approx(effective_rank(torch.cat([points for points, _ in batches])))


def test_pairs_of_a_pair_batch_align():
    points, pairs = torch.randn(4, 3), torch.tensor([[0, 2], [1, 3]])
    metric = Alignment()
    metric.update(points, pairs=pairs, labels=torch.tensor([1.0, 0.0]))
    assert float(metric.compute()) == pytest.approx(alignment(points[:1], points[2:3]), rel=1e-6)


def test_mixed_precision_does_not_reach_uniformity():
    # Near each other, as embeddings early in training: bfloat16 cosines are all 1 or 0.996.
    points = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)) * 0.05 + torch.eye(32)[0]
    plain, metric, beside = uniformity(points), Uniformity(), Uniformity()
    metric.update(points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert uniformity(points) == plain
        beside.update(points)
    assert beside.compute() == metric.compute()
