"""What a subject (tenant, user or key) may use. Plain values; no database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

SubjectKind = Literal["tenant", "user", "key"]
Priority = Literal["low", "normal", "high"]

SUBJECT_KINDS: Final[tuple[SubjectKind, ...]] = ("tenant", "user", "key")
PRIORITIES: Final[tuple[Priority, ...]] = ("low", "normal", "high")
NUMBERS: Final = (
    "tokens_per_day", "requests_per_hour", "concurrent_requests", "context_tokens", "answer_tokens",
    "tokens_per_minute", "requests_per_minute",
)  # fmt: skip
_MOST: Final = 10**12  # so that a bucket's level fits into 64 bits


class Quota(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one subject; None: no limit of this kind.

    Days and hours are those of UTC. The limits per minute are token buckets that hold one minute.
    `context_tokens` is prompt and answer of one request together, `answer_tokens` the answer alone:
    the most that a request may ask for, and what it gets if it names no length. `models` are names,
    `variants` precisions; empty: any. `priority` is the highest level of the subject's requests.
    """

    tokens_per_day: int | None = None
    requests_per_hour: int | None = None
    concurrent_requests: int | None = None
    context_tokens: int | None = None
    answer_tokens: int | None = None
    tokens_per_minute: int | None = None
    requests_per_minute: int | None = None
    models: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    priority: Priority | None = None

    def __post_init__(self) -> None:
        for name in NUMBERS:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _MOST:
                raise ValueError(f"{name} is {value}: give 0 to {_MOST}, or nothing for no limit")


NO_QUOTA: Final = Quota()


class Account(msgspec.Struct, frozen=True):
    """Whose a call is. Empty: there is no such subject, as a key without a user."""

    tenant_id: str
    user_id: str = ""
    key_id: str = ""

    @property
    def subjects(self) -> tuple[str, ...]:
        """All that pay for a call, as `kind:id`, the largest first."""
        ids = (self.tenant_id, self.user_id, self.key_id)
        return tuple(
            subject_of(kind, id) for kind, id in zip(SUBJECT_KINDS, ids, strict=True) if id
        )


def subject_of(kind: SubjectKind, id: str) -> str:
    return f"{kind}:{id}"


def highest_priority(quotas: Iterable[Quota]) -> Priority | None:
    """The most urgent level that the subjects of a call allow together; None: any."""
    said = [quota.priority for quota in quotas if quota.priority is not None]
    return min(said, key=PRIORITIES.index, default=None)
