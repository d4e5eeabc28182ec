"""The breaker, judged by what a caller may rely on, whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.kv_tiers.circuit_breaker import Breaker, BreakerConfig, BreakerState

configs = st.builds(
    BreakerConfig,
    failures=st.integers(1, 4),
    first_rest_s=st.floats(0.1, 5.0),
    longest_rest_s=st.floats(5.0, 60.0),
)
happenings = st.lists(
    st.tuples(st.sampled_from(["ask", "succeed", "fail"]), st.floats(0.0, 30.0)), max_size=60
)


@given(config=configs, happenings=happenings)
def test_open_it_lets_nothing_through_until_it_has_rested_and_then_one(
    config: BreakerConfig, happenings: list[tuple[str, float]]
) -> None:
    breaker, now_s, opened_s = Breaker(config), 0.0, 0.0
    failures = 0  # in a row
    rests: list[float] = []  # in a row
    for what, passed_s in happenings:
        now_s += passed_s
        before = breaker.state
        if what == "ask":
            breaker, may = breaker.ask(now_s)
            if before is BreakerState.CLOSED:
                assert may
            elif before is BreakerState.HALF_OPEN:
                assert not may, "only one may try"
            else:
                assert may == (now_s >= opened_s + rests[-1])
                assert breaker.state is (BreakerState.HALF_OPEN if may else BreakerState.OPEN)
        elif what == "succeed":
            breaker = breaker.succeed()
            if before is not BreakerState.OPEN:
                assert breaker == Breaker(config, rests_until_s=breaker.rests_until_s)
                failures, rests = 0, []
            else:
                assert breaker.state is before, "a late success opens nothing"
        else:
            breaker = breaker.fail(now_s)
            failures += before is BreakerState.CLOSED
            if before is BreakerState.OPEN:
                assert breaker.state is before
            elif before is BreakerState.HALF_OPEN or failures == config.failures:
                assert breaker.state is BreakerState.OPEN
                rests.append(breaker.rests_until_s - now_s)
                opened_s, failures = now_s, 0
                assert rests[-1] <= config.longest_rest_s + 1e-6
                assert len(rests) == 1 or rests[-1] >= rests[-2] - 1e-6
            else:
                assert breaker.state is BreakerState.CLOSED


def test_each_rest_in_a_row_is_twice_as_long_up_to_the_longest() -> None:
    breaker, now_s = Breaker(BreakerConfig(failures=2, first_rest_s=1, longest_rest_s=5)), 0.0
    breaker = breaker.fail(now_s)
    assert breaker.state is BreakerState.CLOSED
    rests = []
    for _ in range(5):
        breaker = breaker.fail(now_s)
        rests.append(breaker.rests_until_s - now_s)
        now_s = breaker.rests_until_s
        breaker, may = breaker.ask(now_s)
        assert may
    assert rests == [1, 2, 4, 5, 5]
    breaker = breaker.succeed()
    breaker = breaker.fail(now_s).fail(now_s)
    assert breaker.rests_until_s - now_s == 1, "the next one begins anew"


def test_a_server_that_is_down_for_an_hour_is_tried_about_once_a_minute() -> None:
    breaker, tries = Breaker(BreakerConfig()), 0
    for second in range(3600):
        breaker, may = breaker.ask(float(second))
        if may:
            tries += 1
            breaker = breaker.fail(float(second))
    assert 60 <= tries <= 70
