"""The guardians at work on one call: what may go to the engine, and what of its answers may go out.

Knows nothing of HTTP or of requests: text in, text out, and errors of errors.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from novacron.errors import ContentBlocked, GuardianUnavailable
from novacron.gateway.observers import Observers
from novacron.guardians.gate import Gate
from novacron.guardians.guardian import Guardian, SpanGuardian
from novacron.guardians.masking import Masker
from novacron.guardians.panel import Decision, Panel
from novacron.guardians.records import Mode, Outcome, Span, Stage, Subject, Verdict
from novacron.guardians.window import StreamWindow
from novacron.observability.guardian_values import GuardianTotals

_SEPARATOR = "\n\n"
_LATEST = tuple(Stage)
_RISKS = {Outcome.FLAG: 1.0, Outcome.MASK: 0.5, Outcome.ERROR: 1.0, Outcome.BLOCK: 1.0}


@dataclass(frozen=True, kw_only=True, eq=False)
class Watch:
    """What the guards of all calls share."""

    panel: Panel
    observers: Observers
    totals: GuardianTotals


class CallGuard:
    """The guardians of one call. Placeholders are the same all through it."""

    def __init__(
        self, watch: Watch, guardians: Sequence[Guardian], *, call_id: str, tenant: str
    ) -> None:
        self.watch = watch
        self.guardians = tuple(guardians)
        self.call_id = call_id
        self.tenant = tenant
        self.masker = Masker()
        self.asked = ""
        self.risk = 0.0
        self._admitted: Subject | None = None  # masked, until observers have it

    async def admit(self, texts: Sequence[str], asked: str = "") -> list[str]:
        """`texts` as the engine may have them. `asked`: which part of them is the question itself.

        Raises ContentBlocked, and GuardianUnavailable.
        """
        self.asked = asked or _SEPARATOR.join(texts)
        whole = _SEPARATOR.join(texts)
        subject = Subject(Stage.INPUT, whole, tenant=self.tenant)
        decision = await self.decide(self.enforcing(Stage.INPUT), subject)
        raise_unless_passed(decision)
        masked = self._masked(texts, decision.spans_to_mask)
        self._admitted = replace(subject, text=_SEPARATOR.join(masked))
        return masked

    def _masked(self, texts: Sequence[str], spans: Sequence[Span]) -> list[str]:
        """`spans` are places of all texts with separators between them."""
        if not spans:
            return list(texts)
        masked, start = [], 0
        for text in texts:
            end = start + len(text)
            inside = [
                replace(s, start=max(s.start, start) - start, end=min(s.end, end) - start)
                for s in spans
                if s.start < end and s.end > start
            ]
            masked.append(self.masker.mask(text, inside))
            start = end + len(_SEPARATOR)
        return masked

    def answer(self) -> AnswerGuard:
        """For one of the answers of the call."""
        return AnswerGuard(self)

    @property
    def watches_answers(self) -> bool:
        """Whether an enforcing guardian holds answers back."""
        return bool(self.enforcing(Stage.STREAM) or self.enforcing(Stage.OUTPUT))

    def enforcing(self, stage: Stage) -> list[Guardian]:
        return [
            one
            for one in self.guardians
            if one.duty.mode is Mode.ENFORCE and stage in one.duty.stages
        ]

    async def decide(self, guardians: Sequence[Guardian], subject: Subject) -> Decision:
        decision = await self.watch.panel.decide(guardians, subject)
        for finding in decision.findings:
            verdict = finding.verdict
            self.count(verdict, subject.stage, finding.seconds, is_cached=finding.is_cached)
        return decision

    def count(
        self, verdict: Verdict, stage: Stage, seconds: float = 0.0, *, is_cached: bool = False
    ) -> None:
        self.risk = max(self.risk, _RISKS.get(verdict.outcome, 0.0))
        self.watch.totals.see(
            verdict.guardian,
            stage.value,
            verdict.outcome.name.lower(),
            seconds,
            is_cached=is_cached,
        )

    def observe(self, answers: Sequence[AnswerGuard]) -> None:
        """The call is over: hand what went in, masked, and what of the answers went out to those
        who only look on. Not earlier, for they would take the processor from the call."""
        admitted, self._admitted = self._admitted, None
        for one in self.guardians:
            if admitted and one.duty.mode is Mode.OBSERVE and Stage.INPUT in one.duty.stages:
                self.watch.observers.offer(one, admitted, self.call_id, self.risk)
        for answer in answers:
            if answer.is_over:
                answer.ended()


class AnswerGuard:
    """What of one answer may go out. `blocked` is set once nothing more may, `is_over` once it has
    come to an end."""

    def __init__(self, call: CallGuard) -> None:
        self._call = call
        at_stream, at_output = call.enforcing(Stage.STREAM), call.enforcing(Stage.OUTPUT)
        by_place = [one for one in (*at_stream, *at_output) if isinstance(one, SpanGuardian)]
        self._window = StreamWindow(list(dict.fromkeys(by_place)), call.masker)
        self._judges = [
            one
            for one in dict.fromkeys((*at_stream, *at_output))
            if not isinstance(one, SpanGuardian)
        ]
        needs_all = any(one in at_output for one in self._judges)
        stride = min((one.duty.stride for one in self._judges), default=0)
        self._gate = Gate(None if needs_all else stride) if self._judges else None
        self._out: list[str] = []
        self.blocked: Verdict | None = None
        self.is_over = False

    async def push(self, text: str, *, is_last: bool) -> str:
        """What may go out now. Raises GuardianUnavailable."""
        if self.blocked is not None:
            return ""
        passage = self._window.push(text, is_last=is_last)
        for verdict in passage.verdicts:
            self._call.count(verdict, Stage.STREAM)
        if passage.is_blocked:
            self.blocked = next(v for v in passage.verdicts if v.outcome is Outcome.BLOCK)
        self.is_over = is_over = is_last or passage.is_blocked
        out = passage.text
        if self._gate is not None:
            self._gate.push(out, is_last=is_over)
            out = await self._judged(self._gate, is_over=is_over) if self._gate.is_due else ""
        self._out.append(out)
        return out

    def ended(self) -> None:
        """The answer has gone out as far as it may: observers look at what the client has got."""
        text = "".join(self._out)
        subject = Subject(Stage.POST, text, self._call.asked, self._call.tenant)
        for one in self._call.guardians:
            stages = one.duty.stages & {Stage.STREAM, Stage.OUTPUT, Stage.POST}
            if one.duty.mode is Mode.OBSERVE and stages:
                self._call.watch.observers.offer(
                    one,
                    replace(subject, stage=max(stages, key=_LATEST.index)),
                    self._call.call_id,
                    self._call.risk,
                )

    async def _judged(self, gate: Gate, *, is_over: bool) -> str:
        stage = Stage.OUTPUT if is_over else Stage.STREAM  # where in the answer, for the record
        subject = Subject(stage, gate.text, self._call.asked, self._call.tenant, is_whole=is_over)
        decision = await self._call.decide(self._judges, subject)
        if decision.outcome is Outcome.BLOCK:
            self.blocked, self.is_over = decision.decisive, True
            return ""
        raise_unless_passed(decision)
        return gate.release(decision.spans_to_mask, self._call.masker)


def raise_unless_passed(decision: Decision) -> None:
    if decision.outcome is Outcome.BLOCK:
        verdict = decision.decisive
        raise ContentBlocked(verdict.guardian, verdict.reason.lower())
    if decision.outcome is Outcome.ERROR:
        verdict = decision.decisive
        raise GuardianUnavailable(verdict.guardian, verdict.reason)
