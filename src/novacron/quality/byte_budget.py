"""Which level each part of a model gets, so that all take no more than a budget of bytes.

The sum of what each choice loses is the least there is: a multiple-choice knapsack (Kellerer,
Pferschy and Pisinger 2004, chapter 11), solved by dynamic programming over bytes. Pure; numpy only.

Shapes: B granules of bytes beyond the least that is possible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from novacron.errors import ConfigError

_MOST_GRANULES = 200_000


@dataclass(frozen=True)
class Option:
    """One way to hold a part: what it takes, and what is lost by it (0 or more)."""

    num_bytes: int
    loss: float


@dataclass(frozen=True)
class Allotment:
    """The option of each part by its place, and their sums. No choice within the budget loses less
    than `lower_bound`; `is_exact`: none loses less than this one."""

    choices: tuple[int, ...]
    num_bytes: int
    loss: float
    lower_bound: float
    is_exact: bool


def allot(
    parts: Sequence[Sequence[Option]], budget_bytes: int, *, beside_bytes: int = 0
) -> Allotment:
    """The choice of least loss. Of equal ones, any. `beside_bytes` are taken in any case.

    Bytes are counted in granules. Where one granule divides all differences, the result is exact;
    where there would be too many, sizes are rounded up to larger ones, and the result may lose more
    than the best, by no more than its distance from `lower_bound`. Raises ConfigError if the
    smallest options exceed the budget.
    """
    least = [min(option.num_bytes for option in options) for options in parts]
    spare = budget_bytes - beside_bytes - sum(least)
    if spare < 0:
        raise ConfigError(
            f"{budget_bytes:,} bytes are too few: with every matrix at its smallest level the "
            f"weights take {sum(least) + beside_bytes:,}."
        )
    extras = [
        [one.num_bytes - low for one in options] for options, low in zip(parts, least, strict=True)
    ]
    most = sum(max(of_part) for of_part in extras)
    spare = min(spare, most)
    common = math.gcd(*(extra for of_part in extras for extra in of_part)) or 1
    granule = max(common, -(-spare // _MOST_GRANULES))
    sizes = [[-(-extra // granule) for extra in of_part] for of_part in extras]
    losses = [[one.loss for one in options] for options in parts]
    choices = _choose(sizes, losses, spare // granule)
    chosen = [options[choice] for options, choice in zip(parts, choices, strict=True)]
    loss = sum(one.loss for one in chosen)
    is_exact = granule == common
    return Allotment(
        choices=choices,
        num_bytes=sum(one.num_bytes for one in chosen) + beside_bytes,
        loss=loss,
        lower_bound=loss if is_exact else min(loss, _relaxed(parts, budget_bytes - beside_bytes)),
        is_exact=is_exact,
    )


def _choose(
    sizes: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], room: int
) -> tuple[int, ...]:
    """The option of each part, by granules."""
    best_B = np.zeros(room + 1)
    taken: list[NDArray[np.uint8]] = []
    for of_part, loss_of in zip(sizes, losses, strict=True):
        new_B = np.full(room + 1, np.inf)
        taken_B = np.zeros(room + 1, np.uint8)
        for choice, (size, loss) in enumerate(zip(of_part, loss_of, strict=True)):
            if size > room:
                continue
            with_it_B = np.full(room + 1, np.inf)
            with_it_B[size:] = best_B[: room + 1 - size] + loss
            is_better_B = with_it_B < new_B
            new_B[is_better_B] = with_it_B[is_better_B]
            taken_B[is_better_B] = choice
        best_B = new_B
        taken.append(taken_B)
    left = int(best_B.argmin())
    choices: list[int] = []
    for of_part, taken_B in zip(reversed(sizes), reversed(taken), strict=True):
        choices.append(int(taken_B[left]))
        left -= of_part[choices[-1]]
    return tuple(reversed(choices))


def _relaxed(parts: Sequence[Sequence[Option]], budget_bytes: int) -> float:
    """The greatest of Lagrange's lower bounds: sum of min(loss + price * bytes) - price * budget.
    It rises and falls once over the price, and bends only where two options of a part meet."""
    prices = {0.0}
    for options in parts:
        for one in options:
            for other in options:
                if one.num_bytes < other.num_bytes and one.loss > other.loss:
                    prices.add((one.loss - other.loss) / (other.num_bytes - one.num_bytes))

    def bound(price: float) -> float:
        least = (min(one.loss + price * one.num_bytes for one in options) for options in parts)
        return sum(least) - price * budget_bytes

    return max(map(bound, prices))
