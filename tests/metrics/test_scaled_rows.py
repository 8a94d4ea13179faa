from __future__ import annotations

import pytest
import torch

from simtrain.metrics.scaled_rows import ScaledRows
from simtrain.metrics.vectors import unit_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("magnitude", [1.0, 1e-20, 1e20, 1e-38, 1e38])
def test_rows_have_length_one_at_any_magnitude(dtype, magnitude):
    torch.manual_seed(0)
    vectors = torch.randn(50, 7, dtype=dtype).clamp(-3, 3) * magnitude
    vectors[3] = 0
    rows = ScaledRows(vectors, unit=True)
    expected = unit_rows(vectors.double()).to(dtype)
    # Numbers near the smallest one have few digits left.
    torch.testing.assert_close(rows[0:50], expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(rows[torch.tensor([4, 2])], rows[0:50][[4, 2]])
    assert (rows[3:4] == 0).all()


def test_equal_rows_and_their_doubles_are_equal_bit_for_bit():
    row = torch.randn(1, 33, generator=torch.Generator().manual_seed(1))
    rows = ScaledRows(torch.cat([row, row, 2 * row, row / 8]), unit=True)[0:4]
    assert (rows == rows[0]).all()


def test_vectors_are_neither_copied_nor_changed():
    vectors = torch.randn(20, 3)
    before = vectors.clone()
    rows = ScaledRows(vectors, unit=True)
    rows[torch.arange(5)].zero_()
    rows[0:5].zero_()
    assert rows._vectors is vectors
    assert torch.equal(vectors, before)
    plain = ScaledRows(vectors, unit=False)
    assert torch.equal(plain[torch.tensor([1])], before[1:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_with_a_single_entry_are_equal_whatever_its_size(dtype):
    sizes = torch.rand(500, generator=torch.Generator().manual_seed(3), dtype=dtype) + 1e-3
    rows = ScaledRows(sizes[:, None] * torch.eye(4, dtype=dtype)[2], unit=True)[0:500]
    assert torch.equal(rows, torch.eye(4, dtype=dtype)[2].expand(500, -1))
