"""Verdicts kept for texts that come again: system prompts, earlier turns, requests tried twice."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import blake3
import msgspec

from novacron.guardians.guardian import Guardian
from novacron.guardians.records import Outcome, Subject, Verdict


@dataclass(frozen=True, kw_only=True)
class CacheLimits:
    """What is found to be wrong is kept for less long: somebody may be putting it right."""

    num_entries: int = 4096
    keep_s: float = 600.0
    keep_bad_s: float = 60.0


class VerdictCache:
    """The newest verdicts. No text is kept, only digests of it. A verdict is found again for the
    same guardian in the same version and policy, the same text and context, and the same tenant.
    Errors are never kept."""

    def __init__(self, limits: CacheLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()
        self.num_hits = 0
        self.num_misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: bytes) -> Verdict | None:
        kept = self._kept.get(key)
        if kept is None or kept[0] <= self._clock():
            self._kept.pop(key, None)
            self.num_misses += 1
            return None
        self._kept.move_to_end(key)
        self.num_hits += 1
        return kept[1]

    def keep(self, key: bytes, verdict: Verdict) -> None:
        limits = self._limits
        if not verdict.has_run or limits.num_entries == 0:
            return
        is_bad = verdict.outcome is not Outcome.PASS
        keep_s = limits.keep_bad_s if is_bad else limits.keep_s
        self._kept[key] = self._clock() + keep_s, verdict
        self._kept.move_to_end(key)
        while len(self._kept) > limits.num_entries:
            self._kept.popitem(last=False)


def cache_key(guardian: Guardian, subject: Subject) -> bytes:
    """A digest of all that a verdict may depend on, and of whose text it is."""
    duty = guardian.duty
    parts = (
        duty.name, guardian.version, int(duty.action), subject.stage.value, subject.is_whole,
        subject.tenant, subject.asked, subject.text,
    )  # fmt: skip
    data = msgspec.msgpack.encode([_plain(part) for part in parts])
    return blake3.blake3(data).digest(16)


def _plain(part: object) -> object:
    """Halves of surrogate pairs come in JSON and are no UTF-8."""
    return part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
