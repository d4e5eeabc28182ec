"""HeartMonitor gives up what does not live, and nobody else; and Pulse is what it looks at."""

from __future__ import annotations

import pytest

from novacron.engine.heart_monitor import HeartMonitor, VitalSigns
from novacron.engine.pulse import BEAT_S, Pulse, PulseMemory, Reading
from novacron.testing.waiting import until

LOOK_S = 0.5


def looks(
    monitor: HeartMonitor,
    num: int,
    *,
    beats_a_look: int = 1,
    num_stuck: int = 0,
    stopped: tuple[int, ...] = (),
    is_loading: bool = False,
) -> str | None:
    """The first reason to give it up that so many looks bring."""
    for place in range(num):
        signs = VitalSigns(Reading(1 + place * beats_a_look, num_stuck), stopped)
        reason = monitor.look(signs, is_loading=is_loading)
        if reason is not None:
            return f"{place}: {reason}"
    return None


def test_an_engine_whose_pulse_goes_on_lives_however_long_its_step_up_to_the_limit() -> None:
    monitor = HeartMonitor(10.0, 600.0, LOOK_S)
    assert looks(monitor, 5000) is None
    assert looks(monitor, 3, num_stuck=int(600 / BEAT_S)) is None
    found = looks(monitor, 3, num_stuck=int(600 / BEAT_S) + 1)
    assert found == "0: one step has taken 600.5 s (step_timeout)"
    assert looks(monitor, 3, num_stuck=10**6, is_loading=True) is None


def test_a_pulse_that_stands_still_is_given_up_after_the_timeout_and_later_while_loading() -> None:
    found = looks(HeartMonitor(10.0, 0, LOOK_S), 100, beats_a_look=0)
    assert found == "21: there was no sign of life for 10.5 s (heartbeat_timeout)"
    assert looks(HeartMonitor(10.0, 0, LOOK_S), 200, beats_a_look=0, is_loading=True) is None
    found = looks(HeartMonitor(10.0, 0, LOOK_S), 300, beats_a_look=0, is_loading=True)
    assert found is not None
    assert found.startswith("241: ")


@pytest.mark.parametrize("is_loading", [False, True])
def test_a_process_that_is_stopped_is_given_up_whatever_it_was_doing(is_loading: bool) -> None:
    monitor = HeartMonitor(10.0, 0, LOOK_S)
    assert looks(monitor, 20, stopped=(7, 8), is_loading=is_loading) is None
    assert looks(monitor, 1, is_loading=is_loading) is None
    found = looks(monitor, 30, stopped=(7, 8), is_loading=is_loading)
    assert found == "20: process 7, 8 has been stopped for 10.5 s"


def test_no_timeout_is_no_end() -> None:
    monitor = HeartMonitor(0, 0, LOOK_S)
    assert looks(monitor, 9999, beats_a_look=0, num_stuck=10**6, stopped=(7,)) is None


async def test_a_pulse_says_for_how_long_a_loop_has_not_moved() -> None:
    memory = PulseMemory()
    pulse = Pulse(memory, beat_s=0.001)
    seen = PulseMemory(memory.descriptor)
    await until(lambda: seen.read().num_beats > 5)
    assert seen.read().num_stuck == 0  # nothing is known of the loop yet
    pulse.move()
    await until(lambda: seen.read().num_stuck > 5)
    pulse.rest()
    await until(lambda: seen.read().num_stuck == 0)
    pulse.move()
    await until(lambda: seen.read().num_stuck > 5)
    pulse.move()
    await until(lambda: seen.read().num_stuck <= 5)
    pulse.end()
    memory.close_descriptor()
