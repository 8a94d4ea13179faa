from __future__ import annotations

import dataclasses

import pytest

from simtrain.serving import Hit


def test_hits_are_values() -> None:
    assert Hit(1, 0.5) == Hit(1, 0.5, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        Hit(1, 0.5).score = 1.0  # type: ignore[misc]
