from __future__ import annotations

import os

import pytest

from novacron.executor.rank_pulse import RankPulse, cpu_time_s
from novacron.parallel.handover import HandoverLost


class Times:
    """Processes that compute when they are told to."""

    def __init__(self) -> None:
        self.found = {1: 5.0, 2: 7.0}

    def __call__(self, pid: int) -> float:
        return self.found[pid]


def test_ranks_that_only_wait_are_given_up() -> None:
    times = Times()
    pulse = RankPulse((1, 2), 30.0, times)
    pulse.see_delay(1.0)  # what was computed before this wait counts once
    for _ in range(30):
        times.found[1] += 0.001  # looking whether something has come takes time, too
        pulse.see_delay(1.0)
    with pytest.raises(HandoverLost, match="no other rank has computed anything for 31 s"):
        pulse.see_delay(1.0)


def test_a_long_step_is_waited_for() -> None:
    times = Times()
    pulse = RankPulse((1, 2), 30.0, times)
    for _ in range(100):
        times.found[2] += 0.9
        pulse.see_delay(1.0)


def test_processes_that_are_gone_compute_nothing() -> None:
    assert cpu_time_s(os.getpid()) > 0
    assert cpu_time_s(2**22 + 1) == 0.0
