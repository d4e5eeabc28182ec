"""Breaker: when to leave a tier alone that fails, and when to try it again. Pure: time is told.

Closed, every call goes through. So many failures in a row open it, and for a while no call goes
through; each time in a row twice as long, up to a limit. Then a single call may try, while the rest
go on without (half-open): its success closes the breaker, its failure opens it again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Self


class BreakerState(Enum):
    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    failures: int = 2  # in a row, until it opens
    first_rest_s: float = 1.0
    longest_rest_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """One moment of a breaker; each method tells of the next. Times are of one monotonic clock."""

    config: BreakerConfig
    state: BreakerState = BreakerState.CLOSED
    num_failures: int = 0  # in a row, while it is closed
    num_rests: int = 0  # in a row
    rests_until_s: float = 0.0

    def ask(self, now_s: float) -> tuple[Self, bool]:
        """Whether a call may go through now. Who is let through tells how it ended, once."""
        if self.state is BreakerState.CLOSED:
            return self, True
        if self.state is BreakerState.OPEN and now_s >= self.rests_until_s:
            return replace(self, state=BreakerState.HALF_OPEN), True
        return self, False

    def succeed(self) -> Self:
        """A call did what it should. One that began before the breaker opened changes nothing."""
        if self.state is BreakerState.OPEN:
            return self
        return replace(self, state=BreakerState.CLOSED, num_failures=0, num_rests=0)

    def fail(self, now_s: float) -> Self:
        """A call failed, or took too long."""
        if self.state is BreakerState.OPEN:
            return self
        num_failures = self.num_failures + 1
        if self.state is BreakerState.CLOSED and num_failures < self.config.failures:
            return replace(self, num_failures=num_failures)
        doubled_s = self.config.first_rest_s * 2 ** min(self.num_rests, 30)
        return replace(
            self,
            state=BreakerState.OPEN,
            num_failures=0,
            num_rests=self.num_rests + 1,
            rests_until_s=now_s + min(self.config.longest_rest_s, doubled_s),
        )
