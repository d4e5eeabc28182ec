"""Where a caller stands with its limits, as Anthropic's API tells it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from novacron.accounts.standing import NAMES, seconds_of

_PREFIX = "anthropic-ratelimit-"


def anthropic_limits(limits: Mapping[str, str], now: datetime | None = None) -> dict[str, str]:
    """Headers for `limits`, worded as accounts/standing.py does. Resets are times here (RFC 3339),
    rounded up to seconds."""
    now = now or datetime.now(UTC)
    told: dict[str, str] = {}
    for name in NAMES:
        what, _, of = name.partition("-")
        if name in limits:
            value = limits[name]
            if what == "reset":
                value = _moment(now + timedelta(seconds=seconds_of(value)))
            told[f"{_PREFIX}{of}-{what}"] = value
    return told


def _moment(when: datetime) -> str:
    whole = when.replace(microsecond=0)
    later = whole if whole == when else whole + timedelta(seconds=1)
    return later.strftime("%Y-%m-%dT%H:%M:%SZ")
