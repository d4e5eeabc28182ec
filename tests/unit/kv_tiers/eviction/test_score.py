from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.score import (
    Evidence,
    Factors,
    Weights,
    factors_of,
    nudged,
    score,
)

share = st.floats(0.0, 1.0)
weights = st.builds(Weights, **{part.name: st.floats(0, 1e6) for part in fields(Weights)})
evidence = st.builds(
    Evidence,
    idle_s=st.floats(0, 1e9),
    num_uses=st.integers(0, 10**6),
    return_probability=st.floats(-2, 2),  # whatever an estimator says
    size_fraction=st.floats(-2, 2),
    cost_fraction=st.floats(-2, 2),
    importance=st.floats(-2, 2),
)


def scored(known: Evidence, by: Weights, pressure: float = 0.0) -> float:
    return score(factors_of(known, half_life_s=600.0), by, pressure)


@given(evidence, weights, share)
def test_it_is_between_keep_and_drop(known: Evidence, by: Weights, pressure: float) -> None:
    assert 0 <= scored(known, by, pressure) <= 1


@given(evidence, weights, st.floats(0, 1e9), st.integers(0, 1000), share)
def test_lately_often_and_important_never_score_higher(
    known: Evidence, by: Weights, sooner_s: float, more: int, gain: float
) -> None:
    for better in (
        replace(known, idle_s=max(0.0, known.idle_s - sooner_s)),
        replace(known, num_uses=known.num_uses + more),
        replace(known, importance=known.importance + gain),
        replace(known, return_probability=known.return_probability + gain),
        replace(known, cost_fraction=known.cost_fraction + gain),
    ):
        assert scored(better, by) <= scored(known, by) + 1e-12


@given(evidence, weights, share, share)
def test_pressure_raises_all_scores(known: Evidence, by: Weights, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert scored(known, by, low) <= scored(known, by, high) + 1e-12


def test_without_weights_nothing_speaks_for_leaving() -> None:
    nothing = Weights(**{part.name: 0.0 for part in fields(Weights)})
    assert score(Factors(*[1.0] * 6), nothing) == 0.0


@given(st.lists(st.tuples(share, share, share, share, share, share), max_size=60))
def test_nudges_stay_within_bounds(regrets: list[tuple[float, ...]]) -> None:
    start = now = Weights()
    for regret in regrets:
        now = nudged(now, start, Factors(*regret), rate=0.5)
    for part in fields(start):
        first = getattr(start, part.name)
        assert first / 2 <= getattr(now, part.name) <= 2 * first


def test_a_nudge_is_against_what_spoke_for_dropping() -> None:
    start = Weights(temporal=1.0, frequency=1.0)
    after = nudged(start, start, Factors(1.0, 0.0, 0.5, 0.5, 0.5, 0.5), rate=0.1)
    assert after.temporal < 1.0 < after.frequency


def test_weights_as_people_write_them() -> None:
    assert Weights.parse("temporal=1, context=0.5") == Weights(
        temporal=1, frequency=0, prediction=0, size=0, recompute=0, context=0.5
    )
    for wrong in ("temporal", "temporal=-1", "mood=1", "temporal=nan", "temporal=inf", "size=0"):
        with pytest.raises(ConfigError, match="weight"):
            Weights.parse(wrong)
