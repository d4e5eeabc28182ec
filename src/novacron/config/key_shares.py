"""What each API key is worth: its share of the engine, and how urgent its requests are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from novacron.errors import ConfigError

PRIORITIES: Final = {"critical": -20, "high": -10, "normal": 0, "low": 10}


@dataclass(frozen=True, slots=True)
class KeyShare:
    """`weight`: of two keys that both want more than there is, one of weight 2 gets twice as much
    as one of 1. `priority`: of requests that ask for none, and the most urgent they may ask for."""

    weight: float = 1.0
    priority: int = 0


USUAL_SHARE: Final = KeyShare()


def parse_key_shares(shares: tuple[str, ...]) -> tuple[KeyShare, ...]:
    """WEIGHT or WEIGHT:PRIORITY each, as in 4:high. Raises ConfigError."""
    return tuple(map(_parse, shares))


def _parse(text: str) -> KeyShare:
    weight, colon, priority = text.partition(":")
    try:
        share = KeyShare(float(weight), _number(priority) if colon else 0)
    except ValueError:
        share = KeyShare(0.0)
    if not (math.isfinite(share.weight) and share.weight > 0):
        raise ConfigError(
            f"api_key_shares has '{text}': write a weight above 0, or a weight and a priority, as "
            f"in 2 or 4:high; priorities are {', '.join(PRIORITIES)}, or whole numbers of which "
            "the lower one is the more urgent."
        )
    return share


def _number(priority: str) -> int:
    known = PRIORITIES.get(priority.strip().lower())
    return int(priority) if known is None else known
