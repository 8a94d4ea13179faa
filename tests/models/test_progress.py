from __future__ import annotations

import io
import time

import pytest

from simtrain.models.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, pause: float, show: bool | None) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    steps = []
    for step in track(range(3), 3, "Encoding", show, delay=0.1):
        steps.append(step)
        time.sleep(pause)
    assert steps == [0, 1, 2]
    return stream.getvalue()


@pytest.mark.parametrize(
    ("terminal", "pause", "show", "expected"),
    [
        (True, 0.06, None, True),
        (True, 0.0, None, False),
        (False, 0.06, None, False),
        (True, 0.0, True, True),
        (True, 0.06, False, False),
    ],
)
def test_bar_shows_up_where_somebody_waits(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, pause: float, show: bool | None, expected: bool
) -> None:
    text = shown(monkeypatch, Terminal() if terminal else io.StringIO(), pause, show)
    assert ("Encoding" in text) == expected
