"""Several guardians, one deadline, and the worst verdict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.guardians.duties import duty

from novacron.guardians.guardian import Duty, SpanGuardian
from novacron.guardians.panel import Panel
from novacron.guardians.pii import PII
from novacron.guardians.records import Outcome, Stage, Subject, Verdict, worst
from novacron.guardians.verdict_cache import CacheLimits, VerdictCache
from novacron.testing.clock import FakeClock
from novacron.testing.waiting import until

SUBJECT = Subject(Stage.INPUT, "a text to judge")


class Scripted:
    """Says what it was told to, once `gate` is open."""

    def __init__(
        self, name: str, outcome: Outcome | Exception, gate: asyncio.Event | None = None,
        *, timeout_s: float = 60.0, is_cached: bool = False,
    ) -> None:  # fmt: skip
        self._duty = duty(name, timeout_s=timeout_s, is_cached=is_cached)
        self._outcome = outcome
        self._gate = gate
        self.num_asked = 0
        self.was_called_off = False
        self.version = "1"

    @property
    def duty(self) -> Duty:
        return self._duty

    async def judge(self, subject: Subject) -> Verdict:
        self.num_asked += 1
        try:
            if self._gate is not None:
                await self._gate.wait()
        except asyncio.CancelledError:
            self.was_called_off = True
            raise
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return Verdict(self._duty.name, self._outcome)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def panel(clock: FakeClock) -> AsyncIterator[Panel]:
    with ThreadPoolExecutor(1) as pool:
        cache = VerdictCache(CacheLimits(keep_s=100, keep_bad_s=10), clock)
        yield Panel(deadline_s=30.0, cache=cache, pool=pool)


@given(st.lists(st.sampled_from(Outcome)))
def test_the_worst_verdict_wins(outcomes: list[Outcome]) -> None:
    verdicts = [Verdict(str(i), outcome) for i, outcome in enumerate(outcomes)]
    assert worst(verdicts) == max(outcomes, default=Outcome.PASS)
    assert worst(verdicts) == worst(reversed(verdicts))


async def test_all_are_asked_at_once(panel: Panel) -> None:
    gate = asyncio.Event()
    guardians = [Scripted(str(i), Outcome.PASS, gate) for i in range(3)]
    deciding = asyncio.create_task(panel.decide(guardians, SUBJECT))
    await until(lambda: all(guardian.num_asked for guardian in guardians))
    gate.set()
    assert (await deciding).outcome is Outcome.PASS


async def test_a_block_calls_the_others_off(panel: Panel) -> None:
    slow = Scripted("slow", Outcome.PASS, asyncio.Event())
    decision = await panel.decide([slow, Scripted("strict", Outcome.BLOCK)], SUBJECT)
    assert decision.decisive.guardian == "strict"
    assert slow.was_called_off
    assert [verdict.guardian for verdict in decision.verdicts] == ["strict"]


async def test_one_that_does_not_answer_in_time_has_not_passed(panel: Panel) -> None:
    silent = Scripted("silent", Outcome.PASS, asyncio.Event(), timeout_s=0.0)
    decision = await panel.decide([silent, Scripted("other", Outcome.PASS)], SUBJECT)
    assert decision.outcome is Outcome.ERROR
    assert decision.decisive.reason == "timeout"
    assert not decision.decisive.has_run


async def test_the_deadline_of_the_panel_counts_too() -> None:
    silent = Scripted("silent", Outcome.PASS, asyncio.Event(), timeout_s=60.0)
    with ThreadPoolExecutor(1) as pool:
        panel = Panel(deadline_s=0.0, cache=VerdictCache(CacheLimits()), pool=pool)
        decision = await panel.decide([silent], SUBJECT)
    assert decision.outcome is Outcome.ERROR


async def test_one_that_fails_has_not_passed_and_the_log_has_no_text(
    panel: Panel, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Scripted("broken", RuntimeError("cannot judge: a text to judge"))
    decision = await panel.decide([broken], SUBJECT)
    assert decision.outcome is Outcome.ERROR
    assert "broken" in caplog.text
    assert "RuntimeError" in caplog.text
    assert SUBJECT.text not in caplog.text


async def test_a_verdict_is_kept_for_the_same_text_and_tenant_only(panel: Panel) -> None:
    guardian = Scripted("judge", Outcome.PASS, is_cached=True)
    for subject in (
        SUBJECT,
        SUBJECT,
        Subject(Stage.INPUT, SUBJECT.text, tenant="other"),
        Subject(Stage.OUTPUT, SUBJECT.text),
        Subject(Stage.INPUT, SUBJECT.text, asked="something"),
        Subject(Stage.INPUT, SUBJECT.text.upper()),
    ):
        await panel.decide([guardian], subject)
    assert guardian.num_asked == 5


async def test_a_new_version_forgets_what_the_old_one_said(panel: Panel) -> None:
    guardian = Scripted("judge", Outcome.PASS, is_cached=True)
    await panel.decide([guardian], SUBJECT)
    guardian.version = "2"
    await panel.decide([guardian], SUBJECT)
    assert guardian.num_asked == 2


async def test_bad_verdicts_are_kept_for_less_long_and_errors_never(
    panel: Panel, clock: FakeClock
) -> None:
    strict = Scripted("strict", Outcome.BLOCK, is_cached=True)
    mild = Scripted("mild", Outcome.PASS, is_cached=True)
    broken = Scripted("broken", ValueError(), is_cached=True)
    for seconds in (0, 9, 2, 90):
        clock.advance(seconds)
        for guardian in (strict, mild, broken):
            await panel.decide([guardian], SUBJECT)
    assert (strict.num_asked, mild.num_asked, broken.num_asked) == (3, 2, 4)


async def test_a_full_cache_forgets_the_oldest(clock: FakeClock) -> None:
    cache = VerdictCache(CacheLimits(num_entries=2), clock)
    for i in range(3):
        cache.keep(bytes([i]), Verdict("x", Outcome.PASS))
    assert len(cache) == 2
    assert cache.find(b"\0") is None
    assert cache.find(b"\2") is not None


async def test_long_texts_are_searched_in_the_pool(panel: Panel) -> None:
    guardian = SpanGuardian(duty("pii"), PII, "1")
    text = "plain words " * 3000 + "ann@example.com"
    decision = await panel.decide([guardian], Subject(Stage.INPUT, text))
    assert [text[span.start : span.end] for span in decision.spans_to_mask] == ["ann@example.com"]


async def test_half_a_surrogate_pair_can_be_judged(panel: Panel) -> None:
    guardian = SpanGuardian(duty("pii"), PII, "1")
    decision = await panel.decide([guardian], Subject(Stage.INPUT, "\ud800 a@b.co"))
    assert decision.outcome is Outcome.MASK
