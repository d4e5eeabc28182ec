"""What a subject (tenant, user or key) may use, and whether a call may ask for so much. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from novacron.errors import Forbidden, InvalidRequest

SubjectKind = Literal["tenant", "user", "key"]
Priority = Literal["low", "normal", "high"]

SUBJECT_KINDS: Final[tuple[SubjectKind, ...]] = ("tenant", "user", "key")
PRIORITIES: Final[tuple[Priority, ...]] = ("low", "normal", "high")
NUMBERS: Final = (
    "tokens_per_day", "requests_per_hour", "concurrent_requests", "context_tokens",
    "tokens_per_minute", "requests_per_minute",
)  # fmt: skip
_MOST: Final = 10**12  # so that a bucket's level fits into 64 bits


class Quota(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one subject; None: no limit of this kind.

    Days and hours are those of UTC. The limits per minute are token buckets that hold one minute.
    `context_tokens` is prompt and answer of one request together. `models` are names, `variants`
    precisions; empty: any. `priority` is the highest level that the subject's requests run at.
    """

    tokens_per_day: int | None = None
    requests_per_hour: int | None = None
    concurrent_requests: int | None = None
    context_tokens: int | None = None
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


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a call asks for. `tokens` is the most it may take: prompts and longest answers;
    `context_tokens` is that of its longest request."""

    tokens: int
    context_tokens: int
    model: str
    variant: str = ""


def check_allowed(quotas: Iterable[tuple[str, Quota]], wish: Wish) -> None:
    """What no waiting changes. Raises Forbidden or InvalidRequest, naming the subject."""
    for subject, quota in quotas:
        if quota.models and wish.model not in quota.models:
            raise Forbidden(
                f"The quota of {subject} does not allow the model '{wish.model}'. Allowed: "
                f"{', '.join(quota.models)}."
            )
        if quota.variants and wish.variant not in quota.variants:
            raise Forbidden(
                f"The quota of {subject} does not allow the precision '{wish.variant}'. Allowed: "
                f"{', '.join(quota.variants)}."
            )
        most = quota.context_tokens
        if most is not None and wish.context_tokens > most:
            raise InvalidRequest(
                f"The request may take {wish.context_tokens} tokens, prompt and answer together; "
                f"the quota of {subject} allows {most}. Shorten the prompt or lower max_tokens.",
                param="max_tokens",
            )
        day = quota.tokens_per_day
        for name, limit in (("day", day), ("minute", quota.tokens_per_minute)):
            if limit is not None and wish.tokens > limit:
                raise InvalidRequest(
                    f"The request may take {wish.tokens} tokens; the quota of {subject} is {limit} "
                    f"a {name}, so that it could never run. Lower max_tokens.",
                    param="max_tokens",
                )


def longest_context(quotas: Iterable[Quota], model_len: int) -> int:
    """The longest context that model and quotas allow."""
    limits = (quota.context_tokens for quota in quotas)
    return min((model_len, *(limit for limit in limits if limit is not None)))


def highest_priority(quotas: Sequence[Quota]) -> Priority:
    """The level that the subjects of a call allow together; normal, where none says one."""
    said = [quota.priority for quota in quotas if quota.priority is not None]
    return min(said, key=PRIORITIES.index, default="normal")
