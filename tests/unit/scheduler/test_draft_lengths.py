"""How many guesses pay: from chances and measured times alone."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from novacron.scheduler.draft_lengths import Candidate, Choice, Costs, choose_lengths


def line(fixed_s: float, per_token_s: float) -> Callable[[int], float]:
    """Times that grow evenly; nothing takes no time."""
    return lambda num_tokens: fixed_s + per_token_s * num_tokens if num_tokens else 0.0


def choose(
    *candidates: Candidate,
    step: tuple[float, float] = (1.0, 0.02),
    draft: tuple[float, float] = (0.1, 0.002),
    num_left: int = 1000,
    trust: float = 1.0,
) -> Choice:
    count = len(candidates)
    costs = Costs(num_tokens=count, num_requests=count, step_s=line(*step), pass_s=line(*draft))
    return choose_lengths(candidates, costs, num_left=num_left, trust=trust)


def test_the_better_the_guesses_the_longer() -> None:
    lengths = [choose(Candidate(rate, 8)).lengths[0] for rate in (0.05, 0.3, 0.6, 0.8, 0.95)]
    assert lengths[0] == 0
    assert lengths == sorted(lengths)
    assert lengths[-1] == 8


def test_the_dearer_the_draft_model_the_shorter() -> None:
    lengths = [
        choose(Candidate(0.8, 8), draft=(price, 0.0)).lengths[0] for price in (0.02, 0.1, 0.3, 0.9)
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 5
    assert lengths[-1] == 0


def test_it_is_the_most_tokens_a_second() -> None:
    """Against every length of a single request, by the definition."""

    def speed(length: int) -> float:
        seconds = 1.0 + 0.02 * (1 + length) + 0.1 * length
        return sum(0.8**place for place in range(length + 1)) / seconds

    assert choose(Candidate(0.8, 8), draft=(0.1, 0.0)).lengths == (max(range(9), key=speed),)


def test_what_does_not_pay_for_one_may_pay_for_many() -> None:
    """A pass takes as long for all of them as for one."""
    lone, shared = Candidate(0.7, 1), [Candidate(0.7, 1)] * 8
    assert choose(lone, *[Candidate(0.01, 1)] * 7, draft=(0.2, 0.0)).lengths[0] == 0
    assert choose(*shared, draft=(0.2, 0.0)).lengths == (1,) * 8


def test_nothing_in_steps_where_a_token_costs_as_much_as_any() -> None:
    assert sum(choose(*[Candidate(0.7, 4)] * 16, step=(0.0, 1.0), draft=(0.5, 0.1)).lengths) == 0


def test_low_prices_are_tried_once_they_are_not_trusted_any_more() -> None:
    dear = Candidate(0.5, 4)
    assert choose(dear, draft=(0.6, 0.0)).lengths == (0,)
    assert choose(dear, draft=(0.6, 0.0), trust=0.5).lengths[0] > 0


def test_catching_up_has_to_be_worth_it() -> None:
    late = Candidate(0.8, 4, num_behind=20_000, num_steps=8)
    assert choose(late).lengths == (0,)
    assert choose(Candidate(0.8, 4, num_behind=20_000, num_steps=100)).lengths[0] > 0
    assert choose(Candidate(0.8, 4, num_behind=2)).lengths[0] > 0


def test_before_anything_is_measured_all_are_tried() -> None:
    chosen = choose(Candidate(0.5, 4), Candidate(0.5, 4), step=(0.0, 0.0), draft=(0.0, 0.0))
    assert chosen.lengths == (4, 4)


@given(
    st.lists(st.builds(Candidate, st.floats(0.01, 0.99), st.integers(1, 8)), max_size=6),
    st.integers(0, 20),
    st.floats(0.1, 3.0),
)
def test_bounds(candidates: list[Candidate], num_left: int, trust: float) -> None:
    chosen = choose(*candidates, num_left=num_left, trust=trust)
    assert len(chosen.lengths) == len(candidates)
    assert sum(chosen.lengths) <= num_left
    assert all(
        0 <= length <= one.max_drafts
        for length, one in zip(chosen.lengths, candidates, strict=True)
    )
    assert chosen.gain >= chosen.price * trust
