"""Several guardians judge one text, side by side, under one deadline.

The worst verdict wins. Whoever does not answer in time, or fails, has not passed the text: its
verdict is ERROR. The first BLOCK settles the matter, and the others are called off.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from novacron.guardians.guardian import Guardian, LocalGuardian
from novacron.guardians.records import Outcome, Span, Subject, Verdict, worst
from novacron.guardians.verdict_cache import VerdictCache, cache_key

logger = logging.getLogger(__name__)

_INLINE_CHARACTERS: Final = 16_384  # more would make other streams wait; a thread takes it


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one guardian: its verdict, the seconds it took, whether it was kept."""

    verdict: Verdict
    seconds: float
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdicts of a panel, in the order of its guardians; after a BLOCK some may be missing."""

    findings: tuple[Finding, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return tuple(finding.verdict for finding in self.findings)

    @property
    def outcome(self) -> Outcome:
        return worst(self.verdicts)

    @property
    def decisive(self) -> Verdict:
        """The first of the worst. There must be one."""
        return next(v for v in self.verdicts if v.outcome is self.outcome)

    @property
    def spans_to_mask(self) -> tuple[Span, ...]:
        return tuple(s for v in self.verdicts if v.outcome is Outcome.MASK for s in v.spans)


class Panel:
    """Asks guardians. `pool` takes long texts; its size bounds what guardians take of the
    machine."""

    def __init__(
        self,
        *,
        deadline_s: float,
        cache: VerdictCache,
        pool: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadline_s = deadline_s
        self._cache = cache
        self._pool = pool
        self._clock = clock

    async def decide(self, guardians: Sequence[Guardian], subject: Subject) -> Decision:
        """Never raises for what a guardian does."""
        findings: list[Finding | None] = [None] * len(guardians)
        waiting: dict[asyncio.Task[Finding], int] = {}
        for i, guardian in enumerate(guardians):
            found = self._at_once(guardian, subject)
            findings[i] = found
            if found is not None and found.verdict.outcome is Outcome.BLOCK:
                return _decision(findings)
        for i, guardian in enumerate(guardians):
            if findings[i] is None:
                waiting[asyncio.create_task(self._in_time(guardian, subject))] = i
        try:
            await self._gather(waiting, findings)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return _decision(findings)

    def close(self) -> None:
        """Let go of the pool; a search that is under way ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _gather(
        self, waiting: dict[asyncio.Task[Finding], int], findings: list[Finding | None]
    ) -> None:
        pending = set(waiting)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                findings[waiting[task]] = task.result()
            if any(task.result().verdict.outcome is Outcome.BLOCK for task in done):
                return

    def _at_once(self, guardian: Guardian, subject: Subject) -> Finding | None:
        """A kept verdict, or that of a guardian that only computes, on a text that is short."""
        start_s = self._clock()
        if guardian.duty.is_cached:
            kept = self._cache.find(cache_key(guardian, subject))
            if kept is not None:
                return Finding(kept, self._clock() - start_s, is_cached=True)
        if isinstance(guardian, LocalGuardian) and len(subject.text) <= _INLINE_CHARACTERS:
            try:
                verdict = guardian.check(subject)
            except Exception as error:
                verdict = _failed(guardian, error)
            return self._finished(guardian, subject, verdict, start_s)
        return None

    async def _in_time(self, guardian: Guardian, subject: Subject) -> Finding:
        start_s = self._clock()
        duty = guardian.duty
        try:
            async with asyncio.timeout(min(duty.timeout_s, self._deadline_s)):
                if isinstance(guardian, LocalGuardian):
                    loop = asyncio.get_running_loop()
                    verdict = await loop.run_in_executor(self._pool, guardian.check, subject)
                else:
                    verdict = await guardian.judge(subject)
        except TimeoutError:
            verdict = Verdict(duty.name, Outcome.ERROR, 0.0, "timeout")
        except Exception as error:
            verdict = _failed(guardian, error)
        return self._finished(guardian, subject, verdict, start_s)

    def _finished(
        self, guardian: Guardian, subject: Subject, verdict: Verdict, start_s: float
    ) -> Finding:
        if guardian.duty.is_cached:
            self._cache.keep(cache_key(guardian, subject), verdict)
        return Finding(verdict, self._clock() - start_s)


def _failed(guardian: Guardian, error: Exception) -> Verdict:
    """The log gets the kind of the error alone: its message may quote the text."""
    name = guardian.duty.name
    logger.warning("guardian %s failed: %s", name, type(error).__name__)
    return Verdict(name, Outcome.ERROR, 0.0, "failed")


def _decision(findings: Sequence[Finding | None]) -> Decision:
    return Decision(tuple(finding for finding in findings if finding is not None))
