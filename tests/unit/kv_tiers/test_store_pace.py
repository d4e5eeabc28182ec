"""When stores may be done: in pauses, and for a share of the time otherwise."""

from __future__ import annotations

from novacron.kv_tiers.store_pace import StorePace
from novacron.testing.clock import FakeClock


def test_a_share_is_of_what_was_computed_not_of_what_was_waited() -> None:
    clock, cpu = FakeClock(), FakeClock()
    pace = StorePace(0.1, clock, cpu)
    pace.begin_step()
    assert pace.is_time
    pace.begin_turn()
    clock.advance(50.0)  # for a core
    cpu.advance(1.0)
    pace.end_turn()
    clock.advance(9.9)
    assert not pace.is_time
    clock.advance(0.2)
    assert pace.is_time


def test_there_is_no_pause_while_another_step_is_in_flight() -> None:
    clock = FakeClock()
    pace = StorePace(0.01, clock, FakeClock())
    pace.begin_step()
    pace.begin_step()
    pace.end_step()
    clock.advance(1.0)
    assert not pace.is_paused
    pace.end_step()
    clock.advance(0.03)
    assert pace.is_paused


def test_a_pause_is_always_a_time_and_a_step_ends_it() -> None:
    clock, cpu = FakeClock(), FakeClock()
    pace = StorePace(0.01, clock, cpu)
    pace.begin_step()
    pace.begin_turn()
    cpu.advance(1.0)
    pace.end_turn()
    pace.end_step()
    assert not pace.is_time, "the next step may come at once"
    clock.advance(0.03)
    assert pace.is_time
    pace.begin_step()
    assert not pace.is_time
    assert 0 < pace.patience_s < 1


def test_nothing_is_stored_while_somebody_waits_for_blocks_of_this_machine() -> None:
    pace = StorePace(1.0, FakeClock(), FakeClock())
    pace.begin_loads(2)
    pace.end_load()
    assert pace.is_paused
    assert not pace.is_time
    pace.end_load()
    assert pace.is_time


def test_steps_that_will_not_end_are_forgotten() -> None:
    clock = FakeClock()
    pace = StorePace(0.01, clock, FakeClock())
    pace.begin_step()
    pace.begin_step()
    pace.forget_steps()
    clock.advance(0.03)
    assert pace.is_paused
