"""How far ahead to guess: from how often guesses were right, and from what one more costs. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

_PRIOR_RATE: Final = 0.5  # before anything is known, every second guess is taken to be right
_PRIOR_TRIED: Final = 2.0
_MEMORY: Final = 0.95  # weight that a try leaves to those before it
_MEMORY_AT_REST: Final = 0.995  # the same, of a step in which a guess was there but not tried


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How many of the latest drafts of a request were right; older ones count less and less.

    Only drafts up to the first wrong one say something: those behind it had no chance.
    """

    num_right: float = 0.0
    num_tried: float = 0.0

    @property
    def rate(self) -> float:
        """Chance that a draft is right if those before it are; above 0 and below 1."""
        return self.rate_where(_PRIOR_RATE)

    def rate_where(self, usual: float) -> float:
        """The same, where `usual` is the rate of other requests, above 0 and below 1."""
        return (self.num_right + usual * _PRIOR_TRIED) / (self.num_tried + _PRIOR_TRIED)

    def after(self, num_drafts: int, num_accepted: int) -> Acceptance:
        """With one more verification."""
        num_right, num_tried = self.num_right, self.num_tried
        for place in range(min(num_accepted + 1, num_drafts)):
            num_right = num_right * _MEMORY + (place < num_accepted)
            num_tried = num_tried * _MEMORY + 1
        return Acceptance(num_right, num_tried)

    def rested(self) -> Acceptance:
        """After a step without a try: what is known fades, so that it is tried again some time."""
        return replace(
            self,
            num_right=self.num_right * _MEMORY_AT_REST,
            num_tried=self.num_tried * _MEMORY_AT_REST,
        )


def best_length(rate: float, max_length: int, price: Callable[[int], float]) -> int:
    """How many drafts to try, so that the tokens they should bring exceed their price the most.

    `price` says what so many drafts cost, in tokens that the step could have brought otherwise.
    """
    best, best_profit, gain = 0, 0.0, 0.0
    for length in range(1, max_length + 1):
        gain += rate**length
        profit = gain - price(length)
        if profit > best_profit:
            best, best_profit = length, profit
    return best
