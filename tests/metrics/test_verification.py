from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from simtrain.errors import ConfigError, DataError
from simtrain.metrics import ErrorRates, PairAUC, PairFNMR, fnmr_at_fmr, pair_auc


def pairs_of(seed: int, n: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    matches = rng.random(n) < 0.4
    matches[:2] = True, False
    return rng.integers(levels, size=n) / levels + 0.2 * matches, matches


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 80), levels=st.sampled_from([1, 3, 50, 10**6]))
def test_area_and_rates_equal_scikit_learn(seed, n, levels):
    similarities, matches = pairs_of(seed, n, levels)
    assert pair_auc(similarities, matches) == pytest.approx(roc_auc_score(matches, similarities), abs=1e-12)
    fpr, tpr, _ = roc_curve(matches, similarities, drop_intermediate=False)
    for allowed in (0, 0.01, 0.1, 0.5, 1):
        rates = fnmr_at_fmr(torch.from_numpy(similarities), torch.from_numpy(matches), allowed)
        assert rates.tar == pytest.approx(tpr[fpr <= allowed + 1e-12].max())
        assert rates.fmr <= allowed + 1e-12
        accepted = similarities > rates.threshold
        assert rates.fmr == pytest.approx(accepted[~matches].mean())
        assert rates.fnmr == pytest.approx(1 - accepted[matches].mean())


def test_perfect_reversed_and_constant_similarities():
    matches = [True, True, False, False]
    assert pair_auc(np.array([4.0, 3, 2, 1]), np.array(matches)) == 1.0
    assert pair_auc(np.array([1.0, 2, 3, 4]), np.array(matches)) == 0.0
    assert pair_auc(np.ones(4), np.array(matches)) == 0.5
    assert fnmr_at_fmr(np.ones(4), np.array(matches), 0.5) == ErrorRates(1.0, 0.0, 1.0)
    assert fnmr_at_fmr(np.ones(4), np.array(matches), 1) == ErrorRates(0.0, 1.0, -math.inf)


@pytest.mark.parametrize(
    ("similarities", "matches", "message"),
    [
        (torch.rand(3), torch.tensor([1, 0]), r"one a pair; got torch.float32 of shape \(3,\)"),
        (torch.arange(2), torch.tensor([1, 0]), "got torch.int64"),
        (torch.tensor([0.0, math.nan]), torch.tensor([1, 0]), "similarity of pair 1 is NaN"),
        (torch.rand(2), torch.tensor([1, 2]), "booleans, or 0 and 1"),
        (torch.rand(2), torch.tensor([1, 1]), "no other pair among 2"),
        (torch.rand(2), torch.tensor([0, 0]), "no matching pair among 2"),
        (torch.rand(0), torch.zeros(0).bool(), "no matching pair among 0"),
    ],
)
def test_wrong_pairs_are_refused(similarities, matches, message):
    for measure in (pair_auc, lambda a, b: fnmr_at_fmr(a, b, 0.1)):
        with pytest.raises(DataError, match=message):
            measure(similarities, matches)


@pytest.mark.parametrize("fmr", [-0.1, 1.1, math.nan, True])
def test_a_wrong_rate_is_refused(fmr):
    with pytest.raises(ConfigError, match="fmr is a share from 0 to 1"):
        fnmr_at_fmr(torch.rand(2), torch.tensor([1, 0]), fmr)
    with pytest.raises(ConfigError, match="fmr is a share from 0 to 1"):
        PairFNMR(fmr)


def every_pair(points: torch.Tensor, matches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    unit = torch.nn.functional.normalize(points.double())
    first, second = torch.triu_indices(len(points), len(points), 1)
    return (unit @ unit.T)[first, second], matches[first, second]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(2, 300), min_size=1, max_size=3))
def test_batches_equal_the_functions_to_a_bin(seed, sizes):
    torch.manual_seed(seed)
    auc, fnmr, similarities, matches = PairAUC(), PairFNMR(0.05), [], []
    for size in sizes:
        points, groups = torch.randn(size, 5), torch.randint(3, (size,))
        groups[:2] = torch.tensor([0, 1])
        points += torch.nn.functional.one_hot(groups, 5)
        auc.update(points, groups)
        fnmr.update(points, groups)
        more, same = every_pair(points, groups[:, None] == groups)
        similarities.append(more)
        matches.append(same)
    similarities, matches = torch.cat(similarities), torch.cat(matches)
    assert int(auc.counts.sum()) == len(matches)
    if bool(matches.any()):
        assert float(auc.compute()) == pytest.approx(pair_auc(similarities, matches), abs=2e-3)
        rates = fnmr_at_fmr(similarities, matches, 0.05)
        # Whole bins are accepted or refused: what lies within a bin of the threshold may differ.
        found = fnmr.rates()
        assert found.fnmr == pytest.approx(float(fnmr.compute()))
        assert found.fmr <= 0.05
        assert found.tar == 1 - found.fnmr
        # What the metric accepts at its threshold is what it counts, but for rounding at the edge of a bin.
        edge = (similarities - found.threshold).abs() < 1e-6
        assert (
            abs(float((similarities[matches] < found.threshold).double().mean()) - found.fnmr)
            <= float(edge[matches].double().mean()) + 1e-9
        )
        near = ((similarities - rates.threshold).abs() < 2**-14)[matches].double().mean()
        assert rates.fnmr - 1e-6 <= float(fnmr.compute()) <= rates.fnmr + float(near) + 1e-6


def test_pair_batches_match_as_their_labels_and_subgroups_say():
    torch.manual_seed(0)
    points, pairs = torch.randn(6, 4), torch.tensor([[0, 3], [1, 4], [2, 5]])
    metric = PairAUC()
    metric.update(points, pairs=pairs, labels=torch.tensor([1.0, 0.0, 0.5]), subgroups=torch.tensor([7, 7, 7]))
    matches = torch.zeros(6, 6, dtype=torch.bool)
    rows = torch.tensor([0, 2, 3, 5])
    matches[rows[:, None], rows] = True
    assert float(metric.compute()) == pytest.approx(pair_auc(*every_pair(points, matches)), abs=1e-3)


def test_before_both_kinds_were_seen():
    auc, fnmr = PairAUC(), PairFNMR()
    auc.update(torch.ones(3, 2), torch.zeros(3).long())
    fnmr.update(torch.ones(3, 2), torch.arange(3))
    assert (float(auc.compute()), float(fnmr.compute())) == (0.0, 1.0)
    assert fnmr.rates() == ErrorRates(1.0, 0.0, math.inf)
    everything = PairFNMR(1)
    everything.update(torch.eye(3), torch.tensor([0, 0, 1]))
    assert everything.rates() == ErrorRates(0.0, 1.0, -math.inf)
    with pytest.raises(ConfigError, match="exactly one of them"):
        auc.update(torch.ones(3, 2))


def test_mixed_precision_does_not_reach_the_cosines_of_pairs():
    points = torch.randn(48, 8, generator=torch.Generator().manual_seed(0)) + 2 * torch.eye(8).repeat(6, 1)
    groups, plain, mixed = torch.arange(48) % 8, PairFNMR(0.01), PairFNMR(0.01)
    plain.update(points, groups=groups)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed.update(points, groups=groups)
    assert mixed.counts.equal(plain.counts)


def test_cosines_that_are_equal_but_for_rounding_are_ties_in_a_metric():
    # Rows of -1 and 1, scaled: float32 has their cosines of 0, 1/4 and 1/2 a little off, now up, now down.
    generator = torch.Generator().manual_seed(0)
    signs, groups = torch.randint(0, 2, (60, 8), generator=generator) * 2.0 - 1.0, torch.arange(60) % 6
    metric = PairAUC()
    metric.update(signs * torch.tensor([1.0, 3.0, 0.7]).repeat(20)[:, None], groups=groups)
    first, second = torch.triu_indices(60, 60, 1)
    expected = pair_auc((signs[first] * signs[second]).sum(dim=1), groups[first] == groups[second])
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)
