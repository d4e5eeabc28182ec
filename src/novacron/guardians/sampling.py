"""Which calls an observer looks at, and what that says of all of them.

Looking costs, so only a part is looked at: every call that is suspicious, and of the others a
share. Whether one is chosen depends on its id, not on chance, so that a run can be repeated. Each
one looked at stands for 1/p calls (Horvitz and Thompson 1952), which makes the estimates unbiased
whatever the probabilities p were, as long as each was fixed before looking and above 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import blake3

_STIFFNESS: Final = 8  # how hard the share gives way once the budget is passed
CERTAIN_RISK: Final = 1.0  # from here on every call is looked at


@dataclass(frozen=True, slots=True)
class Draw:
    is_chosen: bool
    probability: float


@dataclass(frozen=True, kw_only=True)
class SamplingRule:
    """`share` of the calls without risk. `budget`: calls that are looked at, on average, as a share
    of all; the share shrinks to keep it, down to `floor` of itself."""

    share: float = 1.0
    budget: float = 1.0
    floor: float = 0.1

    def probability(self, risk: float, spent: float) -> float:
        """`risk` from 0 to 1; `spent`: the part of the calls so far that were looked at."""
        if risk >= CERTAIN_RISK:
            return 1.0
        base = self.share + (1.0 - self.share) * max(0.0, risk)
        pressure = min(1.0, self.budget / spent) ** _STIFFNESS if spent > 0 else 1.0
        return min(1.0, max(base * pressure, self.share * self.floor))


class Sampler:
    """Draws for one guardian, and adds up what it finds."""

    def __init__(self, rule: SamplingRule, name: str) -> None:
        self._rule = rule
        self._name = name
        self._num_chosen = 0
        self.estimate = Estimate()

    def draw(self, call_id: str, risk: float) -> Draw:
        """Counts the call. Who is chosen has to be told to `estimate` later, or taken back."""
        spent = self._num_chosen / self.estimate.num_calls if self.estimate.num_calls else 0.0
        probability = self._rule.probability(risk, spent)
        is_chosen = uniform(f"{self._name}\0{call_id}") < probability
        self._num_chosen += is_chosen
        self.estimate.num_calls += 1
        return Draw(is_chosen, probability)

    def take_back(self) -> None:
        """A chosen call could not be looked at, for a reason that has nothing to do with it: it
        counts no more."""
        self.estimate.num_calls -= 1
        self._num_chosen -= 1


@dataclass
class Estimate:
    """Of the mean of a score, and of the share of findings, over all calls."""

    num_calls: int = 0
    _scores: float = 0.0
    _findings: float = 0.0
    _variance: float = 0.0

    def add(self, draw: Draw, score: float, *, is_finding: bool) -> None:
        weight = 1.0 / draw.probability
        self._scores += weight * score
        self._findings += weight * is_finding
        self._variance += is_finding * (1.0 - draw.probability) * weight * weight

    @property
    def mean_score(self) -> float | None:
        return self._scores / self.num_calls if self.num_calls else None

    @property
    def finding_share(self) -> float | None:
        return self._findings / self.num_calls if self.num_calls else None

    @property
    def finding_share_error(self) -> float | None:
        """Its standard error, for draws that do not depend on each other."""
        return math.sqrt(self._variance) / self.num_calls if self.num_calls else None


def uniform(text: str) -> float:
    """From 0 up to but not 1, the same for the same text."""
    digest = blake3.blake3(text.encode("utf-8", "surrogatepass")).digest(8)
    return int.from_bytes(digest, "big") / 2**64
