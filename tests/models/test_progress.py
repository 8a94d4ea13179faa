from __future__ import annotations

import io

import pytest

from simtrain.models.progress import Progress, track
from tests.clock import Clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, pause: float, show: bool | None) -> str:
    monkeypatch.setattr("sys.stderr", stream)
    clock, steps = Clock(monkeypatch), []
    for step in track(range(3), 3, "Encoding", show, delay=0.1):
        steps.append(step)
        clock.now += pause
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


def test_a_bar_is_not_drawn_on_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, drawn = Clock(monkeypatch), []
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(Progress, "_open", lambda self: _Bar(drawn))
    with Progress("encoding", total=1000, show=True) as progress:
        for _ in range(1000):
            clock.now += 0.001
            progress.advance(1)
    assert 8 <= len(drawn) <= 12  # a second's worth, and the end
    assert drawn[-1] == {"completed": 1000, "speed": pytest.approx(1000)}


class _Bar:
    task_ids = (0,)

    def __init__(self, drawn: list[dict[str, float]]) -> None:
        self.drawn = drawn

    def update(self, task: int, **what: float) -> None:
        self.drawn.append(what)

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("show", [True, None])
def test_a_few_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, show: bool | None
) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    caplog.set_level("INFO", logger="simtrain")
    with Progress("encoding", total=3600, show=show) as progress:
        for _ in range(3600):
            clock.now += 1.0
            progress.advance(1)
    lines = stream.getvalue().splitlines() if show else caplog.messages
    assert (stream.getvalue() == "") == (show is None)
    assert 9 <= len(lines) <= 12
    assert "encoding: 1,800 of 3,600, 1 items/s, 0:30:00 left" in lines


def test_short_work_logs_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    caplog.set_level("INFO", logger="simtrain")
    for step in track(range(9), 9, "Encoding"):
        clock.now += 1.0
        assert step < 9
    assert caplog.messages == []
