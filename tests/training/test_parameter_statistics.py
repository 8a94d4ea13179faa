from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from simtrain.errors import ConfigError, UnknownNameError
from simtrain.training import parameter_statistics
from simtrain.training.parameter_statistics import parameter_histogram, parameter_outliers


def holding(values: Tensor) -> nn.Module:
    model = nn.Module()
    model.w = nn.Parameter(values, requires_grad=values.is_floating_point() or values.is_complex())
    return model


def bars(values: Tensor, bins: int = 50) -> tuple[np.ndarray, np.ndarray, str]:
    axes = parameter_histogram(holding(values), "w", bins).axes[0]
    [patch] = axes.patches
    return patch.get_data().values, patch.get_data().edges, axes.get_title()


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40).filter(lambda v: max(v) - min(v) > 1e-3),
    st.integers(1, 12),
)
def test_the_bars_are_numpys(values: list[float], bins: int) -> None:
    counts, edges, _ = bars(torch.tensor(values), bins)
    expected, expected_edges = np.histogram(np.array(values, dtype=np.float64), bins)
    np.testing.assert_allclose(edges, expected_edges, rtol=1e-12, atol=1e-9)
    assert counts.sum() == len(values)
    # A value on an inner edge may fall to either side by rounding.
    assert abs(np.cumsum(counts) - np.cumsum(expected)).max() <= (np.isin(values, edges).sum() or 1)


def test_pieces_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(1000)
    values[5] = math.nan
    whole, table = bars(values), parameter_outliers(holding(values), 2)
    monkeypatch.setattr(parameter_statistics, "CHUNK", 7)
    pieces = bars(values)
    np.testing.assert_array_equal(pieces[0], whole[0])
    [row] = parameter_outliers(holding(values), 2)
    assert row == table[0]


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "int8", "int64", "bool"]
)
def test_any_dtype_will_do(dtype: str) -> None:
    values = torch.tensor([0, 1, 1, 0, 1]).to(getattr(torch, dtype))
    counts, edges, title = bars(values, 4)
    assert list(counts) == [2, 0, 0, 3]
    assert (edges[0], edges[-1]) == (0, 1)
    assert title == f"w (5, {dtype})"
    assert parameter_outliers(holding(values))[0]["max_val"] == 1


def test_labels_say_what_is_drawn() -> None:
    axes = parameter_histogram(nn.Linear(3, 2), "weight").axes[0]
    assert axes.get_title() == "weight (2 × 3, float32)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("value", "number of values")


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    counts, edges, title = bars(torch.tensor([1.0, math.nan, 2.0, math.inf, -math.inf]), 2)
    assert list(counts) == [1, 1]
    assert (edges[0], edges[-1]) == (1, 2)
    assert "3 values that are not finite left out" in title


@pytest.mark.parametrize(
    ("values", "total"),
    [
        (torch.tensor(3.0), 1),
        (torch.zeros(4), 4),
        (torch.full((9,), 1e30), 9),
        (torch.full((3,), -5e-324, dtype=torch.float64), 3),
        (torch.empty(0, 3), 0),
        (torch.full((3,), math.nan), 0),
        (torch.tensor([1 + 2j, 3 - 1j]), 4),
    ],
    ids=["scalar", "zeros", "equal and large", "equal and tiny", "empty", "nan", "complex"],
)
def test_degenerate_parameters_can_be_drawn(values: Tensor, total: int, tmp_path: Any) -> None:
    figure = parameter_histogram(holding(values), "w", 5)
    assert figure.axes[0].patches[0].get_data().values.sum() == total
    figure.savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(UnknownNameError, match="Linear has no parameter 'weigth'; nearest: 'weight'"):
        parameter_histogram(nn.Linear(1, 1), "weigth")
    with pytest.raises(KeyError):
        parameter_histogram(nn.Linear(1, 1), "x")
    with pytest.raises(ConfigError, match="bins should be at least 1, got 0"):
        parameter_histogram(nn.Linear(1, 1), "weight", 0)
    with pytest.raises(ConfigError, match="too far apart"):
        parameter_histogram(holding(torch.tensor([-1.7e308, 1.7e308], dtype=torch.float64)), "w")
    for sigma in (-1, math.nan, math.inf):
        with pytest.raises(ConfigError, match="sigma should be a number of 0 or more, got"):
            parameter_outliers(nn.Linear(1, 1), sigma)


@pytest.mark.parametrize(
    ("model", "message"), [(nn.Linear(1, 1, device="meta"), "meta device"), (nn.LazyLinear(1), "run one batch")]
)
def test_parameters_without_values_are_errors(model: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=f"'weight'.*{message}"):
        parameter_histogram(model, "weight")
    with pytest.raises(ConfigError, match=f"'weight'.*{message}"):
        parameter_outliers(model)


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=50), st.sampled_from([0.5, 1, 2, 3]))
def test_outliers_are_those_of_the_definition(values: list[float], sigma: float) -> None:
    array = np.array(values, dtype=np.float64)
    far = np.abs(array - array.mean()) - sigma * array.std(ddof=1)
    [row] = parameter_outliers(holding(torch.tensor(values)), sigma)
    slack = int((np.abs(far) < 1e-9).sum())
    assert abs(row["outliers"] - int((far > 0).sum())) <= slack
    assert (row["max_val"], row["min_val"]) == (array.max(), array.min())
    assert row["ratio"] == row["outliers"] / len(values)


def test_all_parameters_are_listed_in_order() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    rows = parameter_outliers(model)
    assert [row["parameter"] for row in rows] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(rows[0]) == ["parameter", "total", "outliers", "ratio", "max_val", "min_val"]
    assert parameter_outliers(nn.ReLU()) == []


def test_values_that_are_not_finite_are_outliers_and_spoil_nothing() -> None:
    values = torch.cat([torch.zeros(99), torch.tensor([9.0, math.nan, math.inf, -math.inf])])
    [row] = parameter_outliers(holding(values))
    assert (row["total"], row["outliers"], row["max_val"], row["min_val"]) == (103, 4, 9.0, 0.0)


@pytest.mark.parametrize("sigma", [0, 0.5, 3])
def test_equal_values_are_no_outliers(sigma: float) -> None:
    for values in (torch.full((100_001,), 0.1), torch.tensor(5.0)):
        assert parameter_outliers(holding(values), sigma)[0]["outliers"] == 0


def test_nothing_finite_has_no_extremes() -> None:
    [row] = parameter_outliers(holding(torch.tensor([math.nan])))
    assert (row["outliers"], row["ratio"]) == (1, 1.0)
    assert math.isnan(row["max_val"])
    assert math.isnan(row["min_val"])
    [row] = parameter_outliers(holding(torch.empty(0)))
    assert (row["total"], row["outliers"], row["ratio"]) == (0, 0, 0.0)


def test_large_half_precision_parameters_do_not_overflow() -> None:
    values = torch.full((10_000,), 60_000.0, dtype=torch.float16)
    values[0] = -60_000
    assert parameter_outliers(holding(values))[0]["outliers"] == 1
