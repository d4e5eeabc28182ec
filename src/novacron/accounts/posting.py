"""What is posted to the ledger, and what comes back. Plain values, and the decision. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from novacron.accounts.balance import (
    DAY_MS,
    HOUR_MS,
    Balance,
    Shortage,
    rolled,
    shortages,
    taken,
)
from novacron.accounts.quota import NO_QUOTA, Account, Priority, Quota, highest_priority
from novacron.accounts.standing import rate_limits
from novacron.accounts.wish import Wish, allow
from novacron.coordination.streams import StreamStart
from novacron.errors import NovaCronError, QuotaExceeded

ROOM_AHEAD: Final = 64  # calls for which there has to be room, where one is reserved ahead


class Reserve(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A call that wants to start. `id` is new. `stream`: it is put on record with its reservation,
    so that another coordinator can go on with it. `is_ahead`: there is no call yet; it is granted
    only where there is room for many like it."""

    id: str
    account: Account
    wish: Wish
    stream: StreamStart | None = None
    is_ahead: bool = False


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a call took. Cached tokens are among those of the prompt."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens


class Settle(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The end of a call. `usage` None: it never ran, and counts as nothing.

    May be posted again, and for a call that was never reserved: only the first one counts.
    """

    id: str
    account: Account
    usage: Usage | None


class Entry(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A reservation that was granted: it is in the ledger.

    `answers` are the longest ones that the call may have, `tokens` all that it may take;
    `rate_limits` are those of standing.py. `priority` is the most urgent level; None: any.
    `limits` are what it was decided by, where it was made ahead.
    """

    id: str
    tokens: int
    answers: tuple[int, ...]
    day: int
    hour: int
    rate_limits: dict[str, str]
    priority: Priority | None = None
    limits: tuple[tuple[str, Quota], ...] = ()


Posting = Reserve | Settle
Outcome = Entry | NovaCronError | None


def decide(
    reserve: Reserve,
    balances: dict[str, Balance],
    quotas: Mapping[str, Quota],
    now_ms: int,
) -> Entry | NovaCronError:
    """Grant `reserve` and take it from `balances`, or say why not and leave them.

    All subjects of a call are in one day and hour, the latest that any of them has seen: clocks of
    coordinators differ, and time does not go back.
    """
    subjects = reserve.account.subjects
    limits = tuple((subject, quotas.get(subject, NO_QUOTA)) for subject in subjects)
    try:
        allowed = allow(reserve.wish, limits)
    except NovaCronError as error:
        return error
    day = max(now_ms // DAY_MS, *(balances[subject].day for subject in subjects))
    hour = max(now_ms // HOUR_MS, *(balances[subject].hour for subject in subjects))
    now = {subject: rolled(balances[subject], day, hour) for subject in subjects}
    tokens = allowed.tokens
    num_calls = ROOM_AHEAD if reserve.is_ahead else 1
    missing = [
        (subject, shortage)
        for subject, quota in limits
        for shortage in shortages(now[subject], quota, tokens, now_ms, num_calls)
    ]
    if missing:
        return _refusal(missing, rate_limits([(now[s], quota) for s, quota in limits], now_ms))
    for subject, quota in limits:
        balances[subject] = taken(now[subject], quota, tokens, now_ms)
    told = rate_limits([(balances[subject], quota) for subject, quota in limits], now_ms)
    priority = highest_priority(quota for _, quota in limits)
    told_limits = limits if reserve.is_ahead else ()
    return Entry(reserve.id, tokens, allowed.answers, day, hour, told, priority, told_limits)


def _refusal(missing: list[tuple[str, Shortage]], told: dict[str, str]) -> QuotaExceeded:
    """The limit that takes longest to have room is the one to wait for."""
    subject, worst = max(missing, key=lambda one: one[1].retry_after_ms)
    wait_s = worst.retry_after_ms / 1000
    return QuotaExceeded(
        f"The quota of {subject} is {worst.limit}, and has no room for this request now. Try again "
        f"in {max(1, round(wait_s))} s, or ask for less (max_tokens).",
        retry_after_s=wait_s,
        rate_limits=told,
        subject=subject,
    )
