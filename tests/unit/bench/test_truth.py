"""The harness notices for how long a server takes something to be active that is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from novacron.bench.availability import lower_bound
from novacron.bench.faults import Site, Victims
from novacron.bench.http_client import HttpClient
from novacron.bench.truth import Truth, condition_of
from novacron.testing.server_process import wait_until


def truth() -> Truth:
    return Truth(HttpClient("http://127.0.0.1:1"), Site(Victims(os.getpid())))


def test_a_mistake_lasts_from_when_it_is_one_until_it_is_not_said_any_more() -> None:
    one = truth()
    one.see({"process 7": "works", "process 8": "works"}, 0.0)
    one.see({"process 7": "ended", "process 8": "works"}, 1.0)
    one.see({"process 7": "ended", "process 8": "works"}, 2.0)
    assert one.mistaken_s == {}, "it is not over"
    one.see({"process 8": "works"}, 3.5)
    one.see({"process 9": "works", "process 8": "stopped"}, 4.0)
    one.see({"process 9": "works", "process 8": "works"}, 6.0)  # it went on
    assert one.mistaken_s == {"ended": [2.5], "stopped": [2.0]}


def test_while_the_harness_was_held_nothing_is_known() -> None:
    held: list[tuple[float, float]] = []
    one = Truth(HttpClient("http://127.0.0.1:1"), Site(Victims(os.getpid())), held)
    one.see({"process 7": "ended"}, 1.0)
    one.see({}, 9.5)
    held.append((2.0, 9.0))  # which is noted after the first look that follows
    one.see({"process 8": "ended"}, 10.0)
    one.see({}, 10.5)
    assert one.mistaken_s == {"ended": [0.5]}


def test_what_was_stopped_before_it_ended_counts_from_then() -> None:
    one = truth()
    one.see({"replica-0": "stopped"}, 1.0)
    one.see({"replica-0": "ended"}, 3.0)
    one.see({}, 4.0)
    assert one.mistaken_s == {"stopped": [3.0]}


def test_the_condition_of_a_process_is_what_the_system_says() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        wait_until(lambda: condition_of(child.pid) == "works")
        child.send_signal(signal.SIGSTOP)
        wait_until(lambda: condition_of(child.pid) == "stopped")
        child.kill()
        wait_until(lambda: condition_of(child.pid) == "ended")  # nobody has waited for it yet
    finally:
        child.kill()
        child.communicate()
    assert condition_of(child.pid) == "ended"


@pytest.mark.parametrize(("good", "num", "least", "most"), [(1000, 1000, 0.997, 1.0), (0, 0, 0, 0)])
def test_the_lower_bound_of_a_share(good: int, num: int, least: float, most: float) -> None:
    assert least <= lower_bound(good, num) <= most
