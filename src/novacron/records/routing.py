"""Where a call was sent, and why."""

from __future__ import annotations

from typing import Literal

import msgspec

RoutingReason = Literal["only", "session", "prefix", "spill", "load"]


class Alternative(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Another replica that was ready, and what was predicted of it."""

    replica_id: str
    latency_s: float


class RoutingDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The replica that a call was sent to. `latency_s` is the predicted time to its last token,
    `first_token_s` to its first. `reused_tokens` of the prompt were expected to be cached.

    `why`: only (no other was ready), session (it served the conversation before), prefix (it has
    the most of the prompt), spill (one with more of the prompt has too much to do), load (none has
    any of it, and this one has the least to do). `alternatives` are the next best ones, the best
    first. `seconds` is what deciding took.
    """

    target: str
    why: RoutingReason
    latency_s: float
    first_token_s: float
    reused_tokens: int
    alternatives: tuple[Alternative, ...] = ()
    seconds: float = 0.0
