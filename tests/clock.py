"""A clock for what is shown after some time: its seconds pass when a test says so, however busy the machine is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


class Clock:
    """Seconds that pass when told to, for the bars of :mod:`simtrain.models.progress`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("simtrain.models.progress.time", SimpleNamespace(perf_counter=lambda: self.now))
