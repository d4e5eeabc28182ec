from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from novacron.accounts.token_bucket import (
    UNITS_PER_TOKEN,
    drained,
    full_in_ms,
    room,
    wait_ms,
)

rates = st.integers(1, 100_000)
steps = st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 3_000)), max_size=40)


@given(rates, steps)
def test_it_lets_through_what_a_bucket_of_exact_fractions_does(
    rate: int, steps: list[tuple[int, int]]
) -> None:
    """A level that fills by rate/60000 a millisecond, up to `rate`."""
    debt = at = now = 0
    level = Fraction(rate)
    for pause, tokens in steps:
        now += pause
        level = min(Fraction(rate), level + Fraction(rate * pause, 60_000))
        debt, at = drained(debt, at, now, rate), now
        assert room(debt, rate) == int(level)
        if tokens > rate:
            continue
        wait = wait_ms(debt, tokens, rate)
        assert (wait == 0) == (tokens <= level)
        if wait == 0:
            debt, level = debt + tokens * UNITS_PER_TOKEN, level - tokens


@given(rates, st.integers(0, 10**13), st.integers(0, 3_000))
def test_it_has_room_after_the_wait_and_not_before(rate: int, debt: int, tokens: int) -> None:
    tokens = min(tokens, rate)
    wait = wait_ms(debt, tokens, rate)
    assert wait_ms(drained(debt, 0, wait, rate), tokens, rate) == 0
    if wait:
        assert wait_ms(drained(debt, 0, wait - 1, rate), tokens, rate) > 0
    assert drained(debt, 0, full_in_ms(debt, rate), rate) == 0


def test_a_clock_that_goes_back_fills_nothing() -> None:
    assert drained(500, since_ms=1000, now_ms=400, rate=10) == 500
