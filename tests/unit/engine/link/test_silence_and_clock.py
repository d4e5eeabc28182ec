"""When an end of a link is given up, and what its clock says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.engine.link.other_clock import OtherClock
from novacron.engine.link.silence import LOOK_S, Silence
from novacron.records.output import EngineOutput
from novacron.records.request import Request, SamplingParams


@given(st.floats(1, 60), st.lists(st.booleans(), max_size=200))
def test_who_speaks_often_enough_is_never_given_up(timeout_s: float, heard: list[bool]) -> None:
    silence, silent_s = Silence(timeout_s), 0.0
    for has_spoken in heard:
        if has_spoken:
            silence.hear()
            silent_s = 0.0
        is_lost = silence.look()
        assert is_lost is (silent_s > timeout_s)
        silent_s += LOOK_S


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_times_come_back_as_they_went(ahead_s: float, time_s: float) -> None:
    clock = OtherClock(ahead_s)
    request = Request(
        request_id="r", prompt_token_ids=(1,), sampling=SamplingParams(), arrival_time_s=time_s
    )
    [there] = clock.requests_there((request,))
    silent = EngineOutput(request_id="r")
    outputs = (silent, EngineOutput(request_id="r", first_scheduled_time_s=there.arrival_time_s))
    same, here = clock.outputs_here(outputs)
    assert same is silent
    assert here.first_scheduled_time_s is not None
    assert abs(here.first_scheduled_time_s - time_s) <= 1e-6
