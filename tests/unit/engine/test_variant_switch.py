from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from novacron.engine.variant_switch import (
    RECOVERY_ANSWERS,
    Reading,
    Switch,
    VariantSwitch,
    serving,
)
from novacron.quality.watch import FEWEST_FOR_FLOOR, recovery_limit

FLOOR = 0.9
GOOD, BETWEEN, BAD = 0.99, 0.91, 0.8
NAMES = ("int4", "int8", "none")


def ladder(*readings: tuple[float | None, int]) -> list[Reading]:
    return [
        Reading(name, True, quality, num_scored)
        for name, (quality, num_scored) in zip(NAMES, readings, strict=False)
    ]


def switch() -> VariantSwitch:
    return VariantSwitch(FLOOR, "int4")


def test_below_the_floor_the_next_finer_takes_over_and_says_why() -> None:
    found = switch().observe(ladder((BAD, 100), (GOOD, 100), (GOOD, 100)))
    assert found == Switch("int4", "int8", "its quality is 0.8000, below the floor of 0.9")


def test_a_finer_one_that_is_bad_itself_or_not_ready_is_passed_over() -> None:
    one = switch()
    one.observe(ladder((BAD, 100), (BAD, 100), (GOOD, 100)))
    assert one.choice == "none"
    other = switch()
    readings = ladder((BAD, 100), (GOOD, 100), (GOOD, 100))
    readings[1] = replace(readings[1], is_ready=False)
    other.observe(readings)
    assert other.choice == "none"
    assert other.left == {"int4"}


def test_with_nothing_finer_it_stays() -> None:
    alone = switch()
    assert alone.observe(ladder((BAD, 100))) is None
    assert alone.observe(ladder((BAD, 100), (BAD, 100), (BAD, 100))) is None
    assert alone.choice == "int4"


def test_a_few_answers_say_nothing() -> None:
    one = switch()
    assert one.observe(ladder((BAD, FEWEST_FOR_FLOOR - 1), (None, 0))) is None
    assert one.observe(ladder((BAD, FEWEST_FOR_FLOOR), (None, 0))) is not None


def test_it_comes_back_after_a_recovery_and_not_before() -> None:
    one = switch()
    one.observe(ladder((BAD, 50), (GOOD, 0)))
    for quality, num_scored in (
        (GOOD, 50 + RECOVERY_ANSWERS - 1),  # too few answers since
        (BETWEEN, 50 + RECOVERY_ANSWERS),  # above the floor, not by enough
    ):
        assert one.observe(ladder((quality, num_scored), (GOOD, 0))) is None
    assert FLOOR < BETWEEN < recovery_limit(FLOOR) < GOOD
    found = one.observe(ladder((GOOD, 50 + RECOVERY_ANSWERS), (GOOD, 0)))
    assert found is not None
    assert (found.left, found.entered) == ("int8", "int4")
    assert "int4 has recovered: its quality is 0.9900" in found.reason
    assert one.left == frozenset()


def test_an_engine_started_anew_has_to_prove_itself_from_zero() -> None:
    one = switch()
    one.observe(ladder((BAD, 5000), (GOOD, 0)))
    assert one.observe(ladder((None, 0), (GOOD, 0))) is None
    assert one.observe(ladder((GOOD, RECOVERY_ANSWERS - 1), (GOOD, 0))) is None
    assert one.observe(ladder((GOOD, RECOVERY_ANSWERS), (GOOD, 0))) is not None


def test_one_that_was_only_loading_needs_no_recovery() -> None:
    one = switch()
    one.observe(ladder((BAD, 100)))
    assert one.choice == "int4", "nothing finer is known yet"
    readings = ladder((BAD, 100), (None, 0), (None, 0))
    one.observe([readings[0], replace(readings[1], is_ready=False), readings[2]])
    assert one.choice == "none"
    found = one.observe(readings)
    assert found == Switch("none", "int8", "int8 is ready")


def test_while_the_choice_is_not_ready_its_neighbour_serves() -> None:
    readings = ladder((GOOD, 0), (GOOD, 0), (GOOD, 0))
    assert serving(readings, "int8") == "int8"
    readings[1] = replace(readings[1], is_ready=False)
    assert serving(readings, "int8") == "none"
    readings[2] = replace(readings[2], is_ready=False)
    assert serving(readings, "int8") == "int4"
    readings[0] = replace(readings[0], is_ready=False)
    assert serving(readings, "int8") == "int8", "whose engine says why it refuses"


A_QUALITY = st.sampled_from([None, 0.5, BAD, 0.8999, FLOOR, BETWEEN, 0.925, GOOD, 1.0])
A_STEP = st.tuples(
    *(st.tuples(A_QUALITY, st.integers(0, 150), st.booleans()) for _ in NAMES)
)  # quality, answers scored since the last step, whether it is ready


@given(st.lists(A_STEP, min_size=1, max_size=60))
def test_it_never_flaps(steps: list[tuple[tuple[float | None, int, bool], ...]]) -> None:
    """Whatever the figures do: a variant is left only below the floor, for a finer one that is not;
    it is entered again only well above it, once all its figures are of answers scored since."""
    one = switch()
    scored = dict.fromkeys(NAMES, 0)
    left_at: dict[str, int] = {}
    for step in steps:
        readings = []
        for name, (quality, num_new, is_ready) in zip(NAMES, step, strict=True):
            scored[name] += num_new
            readings.append(Reading(name, is_ready, quality, scored[name]))
        by_name = {reading.name: reading for reading in readings}
        before = one.choice
        found = one.observe(readings)
        assert one.choice == (before if found is None else found.entered)
        if found is None:
            continue
        assert found.left == before
        left, entered = by_name[found.left], by_name[found.entered]
        assert entered.is_ready
        goes_up = NAMES.index(entered.name) > NAMES.index(left.name)
        if goes_up:
            assert left.quality is not None
            assert left.quality < FLOOR
        if entered.name in left_at:
            assert entered.quality is not None
            assert entered.quality >= recovery_limit(FLOOR)
            assert entered.num_scored - left_at.pop(entered.name) >= RECOVERY_ANSWERS
        if goes_up:
            left_at[left.name] = left.num_scored
        assert one.left == left_at.keys()


@given(A_STEP)
def test_figures_that_stay_lead_to_rest(
    step: tuple[tuple[float | None, int, bool], ...],
) -> None:
    one = switch()
    readings = [
        Reading(name, is_ready, quality, num_scored)
        for name, (quality, num_scored, is_ready) in zip(NAMES, step, strict=True)
    ]
    moves = [one.observe(readings) for _ in range(2 * len(NAMES))]
    assert moves[len(NAMES) :] == [None] * len(NAMES)
