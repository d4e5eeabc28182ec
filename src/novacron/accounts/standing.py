"""Where a caller stands with its limits, as answers tell it (limit-tokens and so on). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from novacron.accounts.balance import DAY_MS, HOUR_MS, Balance, request_debt, token_debt
from novacron.accounts.quota import Quota
from novacron.accounts.token_bucket import full_in_ms, room

NAMES: Final = tuple(
    f"{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)

_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:(\d+)ms)?")


class Standing(msgspec.Struct, frozen=True):
    """A limit, what is left of it, and when all of it is there again."""

    limit: int
    remaining: int
    reset_ms: int


def rate_limits(subjects: Sequence[tuple[Balance, Quota]], now_ms: int) -> dict[str, str]:
    """The tightest limit on requests and the tightest on tokens, under NAMES; of kinds without a
    limit, nothing."""
    told: dict[str, str] = {}
    for of, standings in (("requests", _of_requests), ("tokens", _of_tokens)):
        known = (one for balance, quota in subjects for one in standings(balance, quota, now_ms))
        tightest = min(known, key=lambda one: (one.remaining, one.limit), default=None)
        if tightest is not None:
            told[f"limit-{of}"] = str(tightest.limit)
            told[f"remaining-{of}"] = str(tightest.remaining)
            told[f"reset-{of}"] = duration(tightest.reset_ms)
    return told


def duration(ms: int) -> str:
    """As OpenAI writes it: 20ms, 1.5s, 6m0s, 3h2m1s."""
    if ms < 1000:
        return f"{ms}ms"
    if ms < 60_000:
        return f"{ms / 1000:g}s"
    minutes, seconds = divmod(-(-ms // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s"


def seconds_of(duration: str) -> float:
    """What `duration` has written. Raises ValueError for anything else."""
    match = _DURATION.fullmatch(duration)
    if not duration or match is None:
        raise ValueError(f"'{duration}' is no duration")
    hours, minutes, seconds, ms = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + ms / 1000


def _of_requests(balance: Balance, quota: Quota, now_ms: int) -> Iterable[Standing]:
    if (most := quota.requests_per_hour) is not None:
        left = max(0, most - balance.hour_requests)
        yield Standing(most, left, (balance.hour + 1) * HOUR_MS - now_ms)
    if (rate := quota.requests_per_minute) is not None:
        yield _of_bucket(request_debt(balance, quota, now_ms), rate)


def _of_tokens(balance: Balance, quota: Quota, now_ms: int) -> Iterable[Standing]:
    if (most := quota.tokens_per_day) is not None:
        left = max(0, most - balance.day_tokens)
        yield Standing(most, left, (balance.day + 1) * DAY_MS - now_ms)
    if (rate := quota.tokens_per_minute) is not None:
        yield _of_bucket(token_debt(balance, quota, now_ms), rate)


def _of_bucket(debt: int, rate: int) -> Standing:
    return Standing(rate, room(debt, rate), full_in_ms(debt, rate))
