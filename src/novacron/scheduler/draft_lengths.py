"""How many guesses a draft model should make for each request of a step. Pure.

The step's rate, in tokens a second, decides. A guess is worth the chance that it and those before
it are right. It costs a token more in the step, and its share of the draft model's passes: one pass
makes the next guess of every request that still wants one, so what does not pay for one request
alone may pay for ten together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from novacron.scheduler.speculation import MIN_PRICE


@dataclass(frozen=True, slots=True)
class Candidate:
    """A request that could use guesses.

    `rate` is the chance that one is right if those before it are, above 0 and below 1. The draft
    model has to compute `num_behind` tokens before the first; what is more than one of them is done
    once, so it is reckoned as spread over `num_steps` steps.
    """

    rate: float
    max_drafts: int
    num_behind: int = 1
    num_steps: int = 1


@dataclass(frozen=True, slots=True)
class Costs:
    """What a step without guesses is, and how long steps and passes of so many tokens take (0:
    not known yet)."""

    num_tokens: int
    num_requests: int
    step_s: Callable[[int], float]
    pass_s: Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Choice:
    """Guesses for each candidate, the tokens that they should bring, and what they cost: the tokens
    that a step without them brings in the time they take."""

    lengths: tuple[int, ...]
    gain: float = 0.0
    price: float = 0.0


def choose_lengths(
    candidates: Sequence[Candidate], costs: Costs, *, num_left: int, trust: float = 1.0
) -> Choice:
    """The most tokens a second, with `num_left` guesses at most; `trust` is a factor of prices.

    Guesses join in the order of their chances, and the best number of them is taken.
    """
    chances = [
        (candidate.rate**length, place)
        for place, candidate in enumerate(candidates)
        for length in range(1, candidate.max_drafts + 1)
    ]
    chances.sort(key=lambda one: -one[0])
    base_s = costs.step_s(costs.num_tokens)
    lengths = [0] * len(candidates)
    num_rows = [0] * (1 + max((one.max_drafts for one in candidates), default=0))  # by pass
    drafting_s = gain = 0.0
    best, best_speed = Choice(tuple(lengths)), 1.0
    for number, (chance, place) in enumerate(chances[:num_left], start=1):
        lengths[place] += 1
        length = lengths[place]
        drafting_s -= costs.pass_s(num_rows[length])
        num_rows[length] += 1
        drafting_s += costs.pass_s(num_rows[length])
        if length == 1:
            drafting_s += _catch_up_s(candidates[place], costs)
        gain += chance
        price = MIN_PRICE * number
        if base_s > 0.0:
            whole_s = costs.step_s(costs.num_tokens + number) + drafting_s
            price = max(price, (whole_s / base_s - 1.0) * costs.num_requests)
        speed = (costs.num_requests + gain) / (costs.num_requests + price * trust)
        if speed > best_speed:
            best, best_speed = Choice(tuple(lengths), gain, price), speed
    return best


def _catch_up_s(candidate: Candidate, costs: Costs) -> float:
    """A step's share of the time it takes to compute what the draft model has missed."""
    if candidate.num_behind == 1:
        return 0.0
    more_s = costs.pass_s(candidate.num_behind) - costs.pass_s(1)
    return max(0.0, more_s) / candidate.num_steps
