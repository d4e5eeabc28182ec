"""What guardians are asked and what they answer. Plain frozen values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Stage(StrEnum):
    """When a guardian looks at a call."""

    INPUT = "input"  # the prompt, before the engine gets it
    STREAM = "stream"  # the answer as it comes, piece by piece
    OUTPUT = "output"  # the answer as a whole, before any of it goes out
    POST = "post"  # the answer, once it has gone out


class Mode(StrEnum):
    ENFORCE = "enforce"  # the call waits for the verdict; without one it is refused
    OBSERVE = "observe"  # looks on beside the call, which neither waits nor changes


class Outcome(IntEnum):
    """Ordered: the worst of several is the largest.

    ERROR is a guardian that did not come to a verdict: it is never as good as PASS. BLOCK stands
    above it, so that the first one settles what others could only add to.
    """

    PASS = 0
    FLAG = 1  # noted; the text goes on as it is
    MASK = 2  # goes on with placeholders for the spans
    ERROR = 3
    BLOCK = 4


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters `start` up to `end` of a text, and what they are (EMAIL, CARD, ...)."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one guardian says of one text.

    `score` runs from 0 (as bad as can be) to 1 (nothing wrong). `reason` is a short code of the
    guardian's own, never a piece of the text: it goes to clients, logs and metrics.
    """

    guardian: str
    outcome: Outcome
    score: float = 1.0
    reason: str = ""
    spans: tuple[Span, ...] = ()

    @property
    def has_run(self) -> bool:
        return self.outcome is not Outcome.ERROR


@dataclass(frozen=True, slots=True)
class Subject:
    """What is judged. `asked` is the request that an answer belongs to; empty for a request itself.
    `is_whole`: no more of the text will come."""

    stage: Stage
    text: str
    asked: str = ""
    tenant: str = ""
    is_whole: bool = True


def worst(verdicts: Iterable[Verdict]) -> Outcome:
    """PASS if there are none: nobody was asked."""
    return max((verdict.outcome for verdict in verdicts), default=Outcome.PASS)
