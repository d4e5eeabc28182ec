from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.scheduler.acceptance import Acceptance, best_length

rates = st.floats(0.1, 0.99)
verifications = st.lists(
    st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=40
)


def seen(verified: list[tuple[int, int]]) -> Acceptance:
    acceptance = Acceptance()
    for num_drafts, num_accepted in verified:
        acceptance = acceptance.after(num_drafts, num_accepted)
    return acceptance


@given(verifications)
def test_a_rate_is_a_chance_that_is_never_certain(verified: list[tuple[int, int]]) -> None:
    assert 0.0 < seen(verified).rate < 1.0
    assert 0.0 < seen(verified).rested().rate < 1.0


@given(verifications, st.integers(1, 8))
def test_right_guesses_raise_it_and_wrong_ones_lower_it(
    verified: list[tuple[int, int]], num_drafts: int
) -> None:
    before = seen(verified)
    rates = [before.after(num_drafts, right).rate for right in range(num_drafts + 1)]
    assert rates == sorted(rates)
    assert rates[0] <= before.rate + 1e-9
    assert rates[-1] >= before.rate - 1e-9


@given(st.sampled_from([1, 2, 5, 10]), st.integers(1, 8))
def test_it_comes_close_to_the_true_rate(period: int, num_drafts: int) -> None:
    """Every so manieth guess is wrong."""
    acceptance, number = Acceptance(), 0
    for _ in range(200):
        right = 0
        while right < num_drafts and (number := number + 1) % period:
            right += 1
        acceptance = acceptance.after(num_drafts, right)
    assert abs(acceptance.rate - (1 - 1 / period)) < 0.1


@given(verifications)
def test_what_is_known_fades_to_the_first_guess(verified: list[tuple[int, int]]) -> None:
    acceptance, distances = seen(verified), []
    for _ in range(2000):
        distances.append(abs(acceptance.rate - 0.5))
        acceptance = acceptance.rested()
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.01


@given(rates, st.integers(0, 10), st.floats(0.0, 2.0))
def test_the_best_length_is_the_best(rate: float, max_length: int, each: float) -> None:
    def profit(length: int) -> float:
        return sum(rate**n for n in range(1, length + 1)) - each * length

    best = best_length(rate, max_length, lambda length: each * length)
    assert 0 <= best <= max_length
    assert all(profit(best) >= profit(length) - 1e-12 for length in range(max_length + 1))


@given(rates, rates, st.integers(0, 10), st.floats(0.0, 2.0))
def test_better_guesses_go_further_and_dearer_ones_less_far(
    first: float, second: float, max_length: int, each: float
) -> None:
    low, high = sorted((first, second))

    def best(rate: float, each: float) -> int:
        return best_length(rate, max_length, lambda length: each * length)

    assert best(low, each) <= best(high, each)
    assert best(low, each) >= best(low, each + 0.1)
    assert best(high, 0.0) == max_length
    assert best(high, 1.0) == 0
