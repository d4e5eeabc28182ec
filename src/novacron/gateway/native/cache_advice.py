"""What holds the KV cache back, and what to do about it: rules over a window of its figures. Pure.

Each rule looks at one thing and says nothing if there is too little to judge by. Severity is 0 to
1: how much of what could be gained is lost, or 1 for what is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from novacron.gateway.native.cache_window import CacheWindow, TierWindow

_ENOUGH_TOKENS: Final = 2000  # of prompts, to speak of rates
_ENOUGH_RETURNS: Final = 5
_FULL: Final = 0.95
_CHANGE: Final = 0.1  # of a hit rate, that is one


class Finding(Struct, frozen=True, kw_only=True):
    """Something that costs hits or time: what was seen, and what to change."""

    kind: str
    severity: float
    evidence: str
    advice: str


def findings(window: CacheWindow, earlier: CacheWindow | None = None) -> tuple[Finding, ...]:
    """The worst first. `earlier` is the time before, to see a fall."""
    found = [finding for rule in _RULES for finding in rule(window)]
    if earlier is not None:
        found += _fall(earlier, window)
    return tuple(sorted(found, key=lambda finding: finding.severity, reverse=True))


def trend(earlier: float | None, later: float | None) -> str:
    """rising, falling, steady or unknown."""
    if earlier is None or later is None:
        return "unknown"
    if abs(later - earlier) < _CHANGE:
        return "steady"
    return "rising" if later > earlier else "falling"


def _broken_records(window: CacheWindow) -> Iterator[Finding]:
    for tier in window.tiers:
        if tier.mismatches:
            yield Finding(
                kind="broken_blocks",
                severity=1.0,
                evidence=f"{tier.mismatches} blocks of {tier.kind} did not check and were dropped.",
                advice="Run `novacron cache verify`, and look at the medium and its file system: "
                "what is read is not what was written.",
            )


def _failing_tiers(window: CacheWindow) -> Iterator[Finding]:
    for tier in window.tiers:
        if tier.errors:
            yield Finding(
                kind="tier_errors",
                severity=1.0,
                evidence=f"{tier.kind} failed {tier.errors} times, and rests after each.",
                advice="The server's log names the error. On a full disk, set a smaller "
                "kv_disk_size or make room.",
            )


def _preemptions(window: CacheWindow) -> Iterator[Finding]:
    if window.preemptions:
        yield Finding(
            kind="device_too_small",
            severity=min(1.0, 0.3 + 0.05 * window.preemptions),
            evidence=f"{window.preemptions} running requests lost their blocks to others.",
            advice="Give the device's cache more memory (kv_cache_memory), hold it in fewer bits "
            "(kv_cache_dtype int8), or run fewer requests at once (max_num_seqs).",
        )


def _returning_sessions(window: CacheWindow) -> Iterator[Finding]:
    rate = window.session_hit_rate
    if rate is not None and window.session_returns >= _ENOUGH_RETURNS and rate < 0.5:
        full = [tier.kind for tier in window.tiers if tier.fullness >= _FULL]
        advice = "Their prompts change near the start: put what changes at the end."
        if full or not window.tiers:
            where = " and ".join(full) or "There is no tier, and the device"
            advice = (
                f"{where} cannot hold them until the next turn: more room (kv_ram_size, "
                "kv_disk_size) would."
            )
        yield Finding(
            kind="sessions_come_back_cold",
            severity=round(1.0 - rate, 2),
            evidence=f"{window.session_returns} turns of known sessions found {rate:.0%} of their "
            "prompts cached.",
            advice=advice,
        )


def _full_tiers(window: CacheWindow) -> Iterator[Finding]:
    """A full tier is as it should be, unless the one below answers what it no longer has."""
    for upper, lower in zip(window.tiers, window.tiers[1:], strict=False):
        if upper.fullness >= _FULL and lower.hit_tokens > upper.hit_tokens:
            yield Finding(
                kind=f"{upper.kind}_too_small",
                severity=_part(lower.hit_tokens, window.prompt_tokens),
                evidence=f"{upper.kind} is full, and brought {upper.hit_tokens} tokens where "
                f"{lower.kind} brought {lower.hit_tokens}.",
                advice=f"Give {upper.kind} more room (kv_{upper.kind}_size).",
            )


def _dropped_stores(window: CacheWindow) -> Iterator[Finding]:
    stored = max((tier.stored for tier in window.tiers), default=0)
    lost = window.stores_dropped
    if lost > 20 and lost > 0.05 * (stored + lost):
        yield Finding(
            kind="stores_too_slow",
            severity=_part(lost, stored + lost),
            evidence=f"{lost} blocks were overwritten before a tier had them; {stored} were kept.",
            advice="There is little time to store between steps, and the device keeps blocks "
            "briefly: a larger kv_cache_memory gives stores more time.",
        )


def _slow_loads(window: CacheWindow) -> Iterator[Finding]:
    speed = window.computed_tokens_per_second
    tokens = sum(tier.hit_tokens for tier in window.tiers)
    if not (speed and window.waits and window.mean_wait_seconds and tokens >= _ENOUGH_TOKENS):
        return
    waited_s = window.mean_wait_seconds * window.waits
    computing_s = tokens / speed
    if waited_s > computing_s:
        slowest = min(window.tiers, key=_speed)
        yield Finding(
            kind="loads_slower_than_computing",
            severity=_part(waited_s - computing_s, waited_s),
            evidence=f"Requests waited {waited_s:.2f} s for {tokens} tokens, which take "
            f"{computing_s:.2f} s to compute.",
            advice=f"{slowest.kind} is too slow for this model: a faster medium, or "
            f"kv_{slowest.kind}_size 0.",
        )


def _little_reuse(window: CacheWindow) -> Iterator[Finding]:
    if window.hit_rate is None or window.prompt_tokens < _ENOUGH_TOKENS or window.hit_rate >= 0.05:
        return
    yield Finding(
        kind="little_reuse",
        severity=0.2,
        evidence=f"{window.hit_rate:.1%} of {window.prompt_tokens} prompt tokens were reused.",
        advice="Prompts hardly start alike. If they should: put what they share first, keep dates "
        "and ids out of it, and see that cache_salt or several API keys do not separate them; "
        "public prefixes can be shared across keys (POST /api/v1/llm/cache/pin).",
    )


def _fall(earlier: CacheWindow, window: CacheWindow) -> Iterator[Finding]:
    before, now = earlier.hit_rate, window.hit_rate
    enough = min(earlier.prompt_tokens, window.prompt_tokens) >= _ENOUGH_TOKENS
    if before is None or now is None or not enough or now > before - 2 * _CHANGE:
        return
    yield Finding(
        kind="hit_rate_fell",
        severity=round(before - now, 2),
        evidence=f"Reused prompt tokens fell from {before:.0%} to {now:.0%}.",
        advice="Something changed in the prompts, or others crowd the cache: compare with what was "
        "deployed, and pin the prefixes that matter.",
    )


def _part(part: float, whole: float) -> float:
    return round(min(1.0, max(0.0, part / whole)), 2) if whole > 0 else 0.0


def _speed(tier: TierWindow) -> float:
    return tier.bytes_per_second if tier.bytes_per_second is not None else float("inf")


_RULES: Final[tuple[Callable[[CacheWindow], Iterator[Finding]], ...]] = (
    _broken_records,
    _failing_tiers,
    _preemptions,
    _returning_sessions,
    _full_tiers,
    _dropped_stores,
    _slow_loads,
    _little_reuse,
)
