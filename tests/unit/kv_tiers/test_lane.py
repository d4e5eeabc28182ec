"""A thread that calls for others: who waits, how long, and what becomes of calls that hang."""

from __future__ import annotations

import threading
import time

import pytest

from novacron.kv_tiers.lane import Lane

PATIENCE_S = 30.0


def test_results_and_errors_come_back() -> None:
    lane = Lane("test")

    def fail() -> None:
        raise KeyError("mine")

    def be_late() -> None:
        raise TimeoutError("of the work itself")

    assert lane.call(lambda: 7, PATIENCE_S) == 7
    with pytest.raises(KeyError, match="mine"):
        lane.call(fail, PATIENCE_S)
    with pytest.raises(TimeoutError, match="of the work itself"):
        lane.call(be_late, PATIENCE_S)
    assert lane.call(threading.get_ident, PATIENCE_S) != threading.get_ident()
    assert lane.close(PATIENCE_S)


def test_a_call_that_hangs_is_given_up_and_holds_up_the_next_ones_at_once() -> None:
    lane, go_on, ended = Lane("test"), threading.Event(), threading.Event()

    def hang() -> None:
        go_on.wait(PATIENCE_S)
        ended.set()

    with pytest.raises(TimeoutError, match="no answer within"):
        lane.call(hang, 0.01)
    with pytest.raises(TimeoutError, match="has not ended yet"):
        lane.call(lambda: 1, PATIENCE_S)
    assert lane.post(lambda: 1) is None
    go_on.set()
    assert ended.wait(PATIENCE_S)
    assert _eventually(lane) == 2


def test_a_call_that_nobody_waits_for_any_more_is_not_begun() -> None:
    lane, go_on = Lane("test"), threading.Event()
    done = []
    holding = lane.post(lambda: go_on.wait(PATIENCE_S))
    assert holding is not None
    with pytest.raises(TimeoutError):
        lane.call(lambda: done.append("late"), 0.01)
    go_on.set()
    assert lane.call(lambda: 3, PATIENCE_S) == 3
    assert done == []


def test_closing_does_what_waits_and_takes_nothing_more() -> None:
    lane, go_on = Lane("test"), threading.Event()
    done: list[int] = []
    lane.post(lambda: go_on.wait(PATIENCE_S))
    lane.post(lambda: done.append(1))
    assert not lane.close(0.01)
    assert lane.post(lambda: done.append(2)) is None
    go_on.set()
    assert lane.close(PATIENCE_S)
    assert done == [1]


def _eventually(lane: Lane) -> int:
    """The lane is free a moment after the call that hung has ended."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            return lane.call(lambda: 2, PATIENCE_S)
        except TimeoutError:
            continue
    raise AssertionError("the lane stays blocked")
