from hypothesis import given
from hypothesis import strategies as st

from simtrain.training.accumulation import AccumulationWindow


def lengths(window, batches):
    """Length of each window that was completed, as counted batch by batch, and what the window said beforehand."""
    counted, current, said = [], 0, []
    for _ in range(batches):
        said.append(window.next_length)
        current += 1
        completes = window.next_completes
        window.advance()
        assert window.is_full == completes
        assert window.is_open != window.is_full
        if window.is_full:
            counted.append(current)
            current = 0
    return counted, said


def test_the_last_window_has_the_remainder():
    assert lengths(AccumulationWindow(3, total=8), 8) == ([3, 3, 2], [3] * 6 + [2] * 2)


def test_without_a_known_end_a_window_waits_to_be_full():
    window = AccumulationWindow(3)
    assert lengths(window, 8)[0] == [3, 3]
    assert window.is_open


@given(size=st.integers(1, 6), done=st.integers(0, 20), rest=st.integers(0, 20))
def test_windows_cover_the_batches_and_say_their_length_beforehand(size, done, rest):
    window = AccumulationWindow(size, done, done, done + rest)
    counted, said = lengths(window, rest)
    assert sum(counted) == rest, "no batch is left without an update"
    assert said == [length for length in counted for _ in range(length)]
    ends = [done + sum(counted[: i + 1]) for i in range(len(counted))]
    # Windows are those of the uninterrupted run, cut off at the start.
    assert ends == [end for end in range(1, done + rest + 1) if end > done and (end % size == 0 or end == done + rest)]


def test_batches_beyond_the_end_go_on_in_full_windows():
    window = AccumulationWindow(2, total=3)
    assert lengths(window, 7)[0] == [2, 1, 1, 2]


def test_discarding_begins_an_open_window_anew_and_leaves_a_full_one():
    window = AccumulationWindow(3)
    window.advance()
    window.discard()
    assert not window.is_open
    assert window.next_length == 2
    window.advance()
    window.advance()
    window.discard()
    assert window.is_full
