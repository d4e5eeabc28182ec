from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.cluster.speed_estimate import EngineTotals, SpeedEstimate
from novacron.records.output import EngineStats


@pytest.mark.parametrize(
    ("prefill_s", "row_s", "step_s"), [(2e-5, 1e-4, 3e-3), (1e-3, 5e-3, 4e-2), (1e-6, 2e-5, 1e-3)]
)
def test_it_finds_what_tokens_requests_and_steps_cost(
    prefill_s: float, row_s: float, step_s: float
) -> None:
    estimate, draw = SpeedEstimate(), random.Random(1)
    for _ in range(400):
        steps = draw.randrange(1, 20)
        prompt, rows = draw.randrange(2000), steps * draw.randrange(1, 30)
        exact_s = prefill_s * prompt + row_s * rows + step_s * steps
        estimate.see(prompt, rows, steps, exact_s * draw.uniform(0.95, 1.05))
    found = estimate.speed
    assert found.prefill_s == pytest.approx(prefill_s, rel=0.1)
    assert found.row_s == pytest.approx(row_s, rel=0.1)
    assert found.step_s == pytest.approx(step_s, rel=0.2)


def test_it_follows_a_machine_that_has_become_slower() -> None:
    estimate, draw = SpeedEstimate(), random.Random(2)
    for slowness in (1, 4):
        for _ in range(600):
            prompt, rows = draw.randrange(500), draw.randrange(1, 30)
            estimate.see(prompt, rows, 10, slowness * (1e-4 * prompt + 1e-3 * rows + 0.05))
    assert estimate.speed.prefill_s == pytest.approx(4e-4, rel=0.1)


def test_what_one_load_cannot_tell_apart_keeps_the_usual_ratio() -> None:
    """Only decoding was seen, at ten times the usual cost: a prompt is expected to be as slow."""
    estimate, usual = SpeedEstimate(), SpeedEstimate().speed
    for _ in range(50):
        estimate.see(0, 80, 10, 10 * (80 * usual.row_s + 10 * usual.step_s))
    assert estimate.speed.prefill_s == pytest.approx(10 * usual.prefill_s, rel=0.01)
    assert estimate.speed.row_s + estimate.speed.step_s / 8 == pytest.approx(
        10 * (usual.row_s + usual.step_s / 8), rel=0.01
    )


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**5),
            st.floats(1e-9, 1e4),
        ),
        max_size=30,
    )
)  # fmt: skip
def test_whatever_engines_report_speeds_are_positive_and_finite(
    looks: list[tuple[int, int, int, float]],
) -> None:
    estimate = SpeedEstimate()
    for look in looks:
        estimate.see(*look)
    speed = estimate.speed
    assert all(0 < value < float("inf") for value in (speed.prefill_s, speed.row_s, speed.step_s))


def test_looks_are_differences_and_a_new_engine_begins_anew() -> None:
    totals = EngineTotals()
    first = EngineStats(num_steps=4, prompt_tokens=100, generation_tokens=8, step_time_s=0.5)
    assert totals.news(first) == (100.0, 8.0, 4, 0.5)
    assert totals.news(first) is None
    assert totals.news(EngineStats(num_steps=1, step_time_s=0.1)) is None
    again = EngineStats(num_steps=3, prompt_tokens=10, generation_tokens=3, step_time_s=0.25)
    assert totals.news(again) == (10.0, 3.0, 2, 0.15)
