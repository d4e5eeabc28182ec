"""Account: what one tenant has been served at one priority, in proportion to its weight.

Source of the idea: virtual token counters (Sheng et al., Fairness in Serving Large Language Models,
OSDI 2024), their form with predicted lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COST_PROMPT: Final = 1.0  # of a prompt token that is computed; others cost in proportion
COST_CACHED: Final = 0.1
COST_OUTPUT: Final = 2.0  # a prompt's tokens share one pass over the weights, these have one each

Turn = tuple[float, float]

_MEMORY: Final = 0.8  # of the expected length, against the latest request's
_FIRST_GUESS: Final = 32.0  # output tokens, before any request has ended


@dataclass(eq=False, slots=True)
class Account:
    """`served` and `reserved` are costs over weight: at equal values, tenants have had their
    shares. What a running request is expected to bring yet is reserved, so that a tenant whose
    requests have just started does not look as if it had got nothing."""

    tenant: str = ""
    weight: float = 1.0
    served: float = 0.0
    reserved: float = 0.0
    num_running: int = 0
    num_waiting: int = 0
    expected_output: float = _FIRST_GUESS

    @property
    def turn(self) -> Turn:
        """The lower one's turn is earlier: had less, or as much and has fewer seats."""
        return self.served + self.reserved, self.num_running / self.weight

    @property
    def load(self) -> float:
        """Requests over weight. One that is just not there counts as with one."""
        return max(1, self.num_running + self.num_waiting) / self.weight

    @property
    def seats(self) -> float:
        return self.num_running / self.weight

    @property
    def is_idle(self) -> bool:
        return self.num_running == self.num_waiting == 0

    def charge(self, cost: float) -> None:
        self.served += cost / self.weight

    def reserve(self, most_output: int) -> int:
        """Tokens reserved for a request that starts, and may bring `most_output`."""
        num_tokens = min(int(self.expected_output), most_output)
        self.reserved += COST_OUTPUT * num_tokens / self.weight
        return num_tokens

    def release(self, num_tokens: int) -> None:
        """Reserved tokens that came, and are charged, or will not come."""
        self.reserved -= COST_OUTPUT * num_tokens / self.weight
        if self.num_running == 0:
            self.reserved = 0.0  # whatever rounding and a change of weight have left

    def see_end(self, num_output_tokens: int) -> None:
        """A request has ended with so many tokens."""
        self.expected_output += (1 - _MEMORY) * (num_output_tokens - self.expected_output)
