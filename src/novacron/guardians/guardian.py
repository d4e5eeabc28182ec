"""What a guardian is: when it acts, and how it judges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from novacron.guardians.records import Mode, Outcome, Span, Stage, Subject, Verdict
from novacron.guardians.scanning import Entity, find


@dataclass(frozen=True, kw_only=True)
class Duty:
    """When and how one guardian of a policy acts.

    `action` is the outcome of what it finds: FLAG, MASK or BLOCK. A verdict that takes longer than
    `timeout_s` is an ERROR. `share` and `budget` are the parts of the calls that an observer looks
    at, see sampling.py; enforcing ones see all. `stride`: characters of a stream that are judged
    in one go. `is_cached`: its verdict may be kept and used again for the same text.
    """

    name: str
    stages: frozenset[Stage]
    mode: Mode = Mode.ENFORCE
    action: Outcome = Outcome.BLOCK
    timeout_s: float = 1.0
    share: float = 1.0
    budget: float = 1.0
    stride: int = 200
    is_cached: bool = True


class Guardian(Protocol):
    @property
    def duty(self) -> Duty: ...

    @property
    def version(self) -> str:
        """Changes whenever a text might get another verdict: kept ones are then forgotten."""
        ...

    async def judge(self, subject: Subject) -> Verdict:
        """Raises whatever keeps it from judging; the caller makes an ERROR of that."""
        ...


class LocalGuardian(ABC):
    """A guardian that only computes, in a time that the length of the text bounds."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty

    @property
    def duty(self) -> Duty:
        return self._duty

    @property
    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def check(self, subject: Subject) -> Verdict: ...

    async def judge(self, subject: Subject) -> Verdict:
        return self.check(subject)

    def _passed(self, score: float = 1.0) -> Verdict:
        return Verdict(self._duty.name, Outcome.PASS, score)

    def _found(self, reason: str, score: float = 0.0) -> Verdict:
        return Verdict(self._duty.name, self._duty.action, score, reason)


class SpanGuardian(LocalGuardian):
    """Finds entities. Can mask, and can watch a stream place by place (window.py)."""

    def __init__(self, duty: Duty, entities: Sequence[Entity], version: str) -> None:
        super().__init__(duty)
        self.entities = tuple(entities)
        self._version = version
        for entity in self.entities:  # compiled now, not under the first request
            entity.prepare(for_streams=duty.stages & {Stage.STREAM, Stage.OUTPUT} != set())

    @property
    def version(self) -> str:
        return self._version

    def check(self, subject: Subject) -> Verdict:
        spans = find(self.entities, subject.text)
        return verdict_on(self._duty, spans) if spans else self._passed()


def verdict_on(duty: Duty, spans: Sequence[Span]) -> Verdict:
    """That of a guardian which has found `spans`. The reason names their kinds."""
    reason = ",".join(sorted({span.kind for span in spans}))
    return Verdict(duty.name, duty.action, 0.0, reason, tuple(spans))
