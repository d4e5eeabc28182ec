"""What of a stream may go out: the text that no guardian can still take back.

Pure: text in, text out. Holds back only the end of the text, from the place at which something to
be masked or blocked might have begun. What goes out does not depend on the pieces that came in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from novacron.guardians.guardian import SpanGuardian, verdict_on
from novacron.guardians.masking import Masker
from novacron.guardians.records import Outcome, Span, Verdict
from novacron.guardians.scanning import Scanner


@dataclass(frozen=True, slots=True)
class Passage:
    """What may go out, and what was found on the way. After a BLOCK nothing more goes out."""

    text: str
    verdicts: tuple[Verdict, ...] = ()

    @property
    def is_blocked(self) -> bool:
        return any(verdict.outcome is Outcome.BLOCK for verdict in self.verdicts)


class StreamWindow:
    """The text of one answer, as several guardians let it pass."""

    def __init__(self, guardians: Sequence[SpanGuardian], masker: Masker) -> None:
        self._guardians = tuple(guardians)
        self._scanners = [Scanner(guardian.entities) for guardian in self._guardians]
        self._masker = masker
        self._pending: list[tuple[Span, int]] = []  # found, and not gone past; by whom
        self._text = ""  # not released, from place `_at` on
        self._at = 0
        self._is_blocked = False

    @property
    def num_held(self) -> int:
        """Characters that are held back."""
        return len(self._text)

    def push(self, text: str, *, is_last: bool = False) -> Passage:
        if self._is_blocked:
            return Passage("")
        self._text += text
        settled = self._at + len(self._text)
        for i, scanner in enumerate(self._scanners):
            spans, open_from = scanner.push(text, is_last=is_last)
            self._pending += ((span, i) for span in spans)
            settled = min(settled, open_from)
        self._pending.sort(key=_order)
        return self._release(settled)

    def _release(self, settled: int) -> Passage:
        """What stands before `settled`, and spans that begin there to their end."""
        pieces: list[str] = []
        verdicts = []
        while self._pending and self._pending[0][0].start < settled:
            span, i = self._pending.pop(0)
            duty = self._guardians[i].duty
            verdicts.append(verdict_on(duty, (span,)))
            action = duty.action
            if action is Outcome.BLOCK:
                pieces.append(self._take(span.start))
                self._is_blocked, self._text = True, ""
                break
            if action is Outcome.MASK and span.end > self._at:
                pieces.append(self._take(span.start))
                value = self._value_of(span)
                pieces.append(self._masker.placeholder(span.kind, value))
                self._take(span.end)
        else:
            pieces.append(self._take(settled))
        return Passage("".join(pieces), tuple(verdicts))

    def _value_of(self, span: Span) -> str:
        """What of it has not been replaced yet."""
        return self._text[max(0, span.start - self._at) : span.end - self._at]

    def _take(self, place: int) -> str:
        """The text up to `place`; nothing if that has gone already."""
        num = max(0, place - self._at)
        taken, self._text = self._text[:num], self._text[num:]
        self._at += num
        return taken


def _order(pending: tuple[Span, int]) -> tuple[int, int, str, int]:
    span, guardian = pending
    return span.start, -span.end, span.kind, guardian
