from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from novacron.executor.rank_pulse import RankPulse, cpu_time_s, wants_core
from novacron.parallel.handover import HandoverLost
from novacron.testing.server_process import wait_until


class Times:
    """Processes that compute when they are told to."""

    def __init__(self) -> None:
        self.found = {1: 5.0, 2: 7.0}

    def __call__(self, pid: int) -> float:
        return self.found[pid]


def test_ranks_that_only_wait_are_given_up() -> None:
    times = Times()
    pulse = RankPulse((1, 2), 30.0, times, lambda pid: False)
    pulse.see_delay(1.0)  # what was computed before this wait counts once
    for _ in range(30):
        times.found[1] += 0.001  # looking whether something has come takes time, too
        pulse.see_delay(1.0)
    with pytest.raises(HandoverLost, match="no other rank has computed anything for 31 s"):
        pulse.see_delay(1.0)


def test_a_long_step_is_waited_for() -> None:
    times = Times()
    pulse = RankPulse((1, 2), 30.0, times, lambda pid: False)
    for _ in range(100):
        times.found[2] += 0.9
        pulse.see_delay(1.0)


def test_who_waits_for_a_core_does_not_hang() -> None:
    pulse = RankPulse((1, 2), 30.0, Times(), {1: False, 2: True}.__getitem__)
    for _ in range(100):
        pulse.see_delay(1.0)


def test_only_a_process_that_sleeps_or_is_stopped_wants_no_core() -> None:
    """A thread that asks of its own process does not count itself."""
    assert not wants_core(2**22 + 1)
    child = subprocess.Popen(
        [sys.executable, "-c", "input()\nwhile True: pass"], stdin=subprocess.PIPE
    )
    try:
        wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_SLEEPING)
        assert not wants_core(child.pid)
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        wait_until(lambda: wants_core(child.pid))
        child.send_signal(signal.SIGSTOP)
        wait_until(lambda: not wants_core(child.pid))
    finally:
        child.kill()
        child.communicate()


def test_processes_that_are_gone_compute_nothing() -> None:
    assert cpu_time_s(os.getpid()) > 0
    assert cpu_time_s(2**22 + 1) == 0.0
