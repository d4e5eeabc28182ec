"""A token bucket in whole numbers: how much of it is missing, and since when. Pure.

What is missing (the debt) drains at `rate` per minute; the bucket holds one minute. The debt counts
in units of which a token has 60,000, so that `rate` units drain in a millisecond and nothing is
ever rounded. A bucket that nobody has used owes nothing, and a changed rate needs no conversion.
"""

from __future__ import annotations

from typing import Final

UNITS_PER_TOKEN: Final = 60_000  # milliseconds of a minute


def drained(debt: int, since_ms: int, now_ms: int, rate: int) -> int:
    """The debt at `now_ms`; a clock that went back drains nothing."""
    return max(0, debt - rate * max(0, now_ms - since_ms))


def wait_ms(debt: int, tokens: int, rate: int) -> int:
    """How long until `tokens` fit; 0: they do now. `tokens` are at most `rate`."""
    excess = debt + (tokens - rate) * UNITS_PER_TOKEN
    return 0 if excess <= 0 else -(-excess // rate)


def room(debt: int, rate: int) -> int:
    """Whole tokens that fit now."""
    return max(0, rate - -(-debt // UNITS_PER_TOKEN))


def full_in_ms(debt: int, rate: int) -> int:
    """When nothing is missing any more."""
    return 0 if rate == 0 else -(-debt // rate)
