"""Guardians that look on beside the calls. No call waits for them."""

from __future__ import annotations

import asyncio
from typing import Final

from novacron.guardians.guardian import Guardian
from novacron.guardians.panel import Panel
from novacron.guardians.records import Outcome, Subject
from novacron.guardians.sampling import Draw, Sampler, SamplingRule
from novacron.observability.guardian_values import GuardianTotals

_AT_ONCE: Final = 2  # so that what they ask of the engine cannot starve the calls
_MOST_WAITING: Final = 64


class Observers:
    """Draws which calls are looked at, looks, and adds up what that says of all calls."""

    def __init__(self, panel: Panel, totals: GuardianTotals) -> None:
        self._panel = panel
        self._totals = totals
        self._samplers: dict[str, Sampler] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, guardian: Guardian, subject: Subject, call_id: str, risk: float) -> None:
        """Whether there is room is asked before the draw, so that it biases no estimate."""
        name = guardian.duty.name
        if len(self._tasks) >= _MOST_WAITING:
            self._totals.dropped[name] += 1
            return
        sampler = self._sampler(guardian)
        draw = sampler.draw(f"{call_id}\0{subject.stage}", risk)
        self._publish(name, sampler)
        if draw.is_chosen:
            task = asyncio.create_task(self._look(guardian, subject, sampler, draw))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Return when nobody looks at anything any more."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(
        self, guardian: Guardian, subject: Subject, sampler: Sampler, draw: Draw
    ) -> None:
        async with self._places:
            decision = await self._panel.decide((guardian,), subject)
        [finding] = decision.findings
        verdict = finding.verdict
        self._totals.see(
            verdict.guardian,
            subject.stage.value,
            verdict.outcome.name.lower(),
            finding.seconds,
            is_cached=finding.is_cached,
        )
        if verdict.has_run:
            is_finding = verdict.outcome is not Outcome.PASS
            sampler.estimate.add(draw, verdict.score, is_finding=is_finding)
        else:
            sampler.take_back()
        self._publish(verdict.guardian, sampler)

    def _sampler(self, guardian: Guardian) -> Sampler:
        duty = guardian.duty
        if duty.name not in self._samplers:
            rule = SamplingRule(share=duty.share, budget=duty.budget)
            self._samplers[duty.name] = Sampler(rule, duty.name)
        return self._samplers[duty.name]

    def _publish(self, name: str, sampler: Sampler) -> None:
        estimate = sampler.estimate
        if estimate.mean_score is not None and estimate.finding_share is not None:
            self._totals.estimates[name] = (estimate.mean_score, estimate.finding_share)
