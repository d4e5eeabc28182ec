"""What a subject has used of its quota, and the arithmetic of taking and giving back. Pure.

A call takes at its start the most that it may use, and gives back at its end what it has not used.
What is taken counts as used, so a balance that is never above its limit needs nobody's good will:
calls beside each other, restarts and several coordinators change nothing about it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from novacron.accounts.quota import Quota
from novacron.accounts.token_bucket import (
    UNITS_PER_TOKEN,
    drained,
    wait_ms,
)

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
_ANOTHER_CALL_MS: Final = 1000  # a guess at when one of the running calls ends
_NEVER_MS: Final = DAY_MS


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """One subject's. `day` and `hour` count since 1970; what was used in earlier ones is history.

    The debts are those of token buckets, as they were at the times beside them (ms).
    """

    day: int = 0
    day_tokens: int = 0
    hour: int = 0
    hour_requests: int = 0
    active_requests: int = 0
    token_debt: int = 0
    token_debt_at: int = 0
    request_debt: int = 0
    request_debt_at: int = 0


class Shortage(msgspec.Struct, frozen=True):
    """A limit without room: for how long at least, and what to tell."""

    retry_after_ms: int
    limit: str


def rolled(balance: Balance, day: int, hour: int) -> Balance:
    """The balance in this day and hour, which are not before its own."""
    assert day >= balance.day
    assert hour >= balance.hour
    if (day, hour) == (balance.day, balance.hour):
        return balance
    return msgspec.structs.replace(
        balance,
        day=day,
        day_tokens=balance.day_tokens if day == balance.day else 0,
        hour=hour,
        hour_requests=balance.hour_requests if hour == balance.hour else 0,
    )


def shortages(
    balance: Balance, quota: Quota, call_tokens: int, now_ms: int, num_calls: int = 1
) -> list[Shortage]:
    """Every limit that has no room for `num_calls` that may take `call_tokens` each."""
    tokens = num_calls * call_tokens
    found = []
    if quota.tokens_per_day is not None and balance.day_tokens + tokens > quota.tokens_per_day:
        found.append(
            Shortage((balance.day + 1) * DAY_MS - now_ms, f"{quota.tokens_per_day} tokens a day")
        )
    most_an_hour = quota.requests_per_hour
    if most_an_hour is not None and balance.hour_requests + num_calls > most_an_hour:
        found.append(
            Shortage((balance.hour + 1) * HOUR_MS - now_ms, f"{most_an_hour} requests an hour")
        )
    most_active = quota.concurrent_requests
    if most_active is not None and balance.active_requests + num_calls > most_active:
        found.append(Shortage(_ANOTHER_CALL_MS, f"{most_active} requests at a time"))
    debts = (
        (quota.tokens_per_minute, tokens, token_debt(balance, quota, now_ms), "tokens"),
        (quota.requests_per_minute, num_calls, request_debt(balance, quota, now_ms), "requests"),
    )
    for rate, wanted, debt, name in debts:
        if rate is None:
            continue
        wait = _NEVER_MS if rate < wanted else wait_ms(debt, wanted, rate)
        if wait > 0:
            found.append(Shortage(wait, f"{rate} {name} a minute"))
    return found


def taken(balance: Balance, quota: Quota, tokens: int, now_ms: int) -> Balance:
    """After a call that may take `tokens` has started, for which there is room."""
    has_token_rate = quota.tokens_per_minute is not None
    has_request_rate = quota.requests_per_minute is not None
    return msgspec.structs.replace(
        balance,
        day_tokens=balance.day_tokens + tokens,
        hour_requests=balance.hour_requests + 1,
        active_requests=balance.active_requests + 1,
        token_debt=token_debt(balance, quota, now_ms) + has_token_rate * tokens * UNITS_PER_TOKEN,
        token_debt_at=max(now_ms, balance.token_debt_at),
        request_debt=request_debt(balance, quota, now_ms) + has_request_rate * UNITS_PER_TOKEN,
        request_debt_at=max(now_ms, balance.request_debt_at),
    )


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a call, or a correction of it: what it had taken, when, and what of it counts.

    `was_active`: it still counted as running. `never_ran`: it does not count as a request either.
    """

    day: int
    hour: int
    taken_tokens: int
    used_tokens: int
    was_active: bool
    never_ran: bool


def given_back(balance: Balance, closing: Closing) -> Balance:
    """After the end of a call. What belongs to a day or hour before changes none of this one.

    Debts need no draining before: less, and then drained, is the same as drained, and then less.
    """
    unused = closing.taken_tokens - closing.used_tokens
    return msgspec.structs.replace(
        balance,
        day_tokens=balance.day_tokens - (unused if closing.day == balance.day else 0),
        hour_requests=balance.hour_requests
        - (1 if closing.never_ran and closing.hour == balance.hour else 0),
        active_requests=balance.active_requests - (1 if closing.was_active else 0),
        token_debt=max(0, balance.token_debt - unused * UNITS_PER_TOKEN),
        request_debt=max(0, balance.request_debt - closing.never_ran * UNITS_PER_TOKEN),
    )


def token_debt(balance: Balance, quota: Quota, now_ms: int) -> int:
    if quota.tokens_per_minute is None:
        return 0
    return drained(balance.token_debt, balance.token_debt_at, now_ms, quota.tokens_per_minute)


def request_debt(balance: Balance, quota: Quota, now_ms: int) -> int:
    if quota.requests_per_minute is None:
        return 0
    return drained(balance.request_debt, balance.request_debt_at, now_ms, quota.requests_per_minute)
