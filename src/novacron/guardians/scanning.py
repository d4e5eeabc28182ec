"""Finding entities (an address, a key, a phrase) in a whole text, or in one that still comes.

What is found in a text depends on the text alone, not on the pieces it came in: at each place it is
decided once no continuation could decide otherwise, and the scan goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from novacron.guardians.folding import fold, lower
from novacron.guardians.patterns import MOST_BEHIND, Pattern
from novacron.guardians.records import Span

Accept = Callable[[str], int]  # a candidate -> how many of its characters, from the first, count


@dataclass(frozen=True)
class Entity:
    """A kind of thing to find. `accept` judges what the pattern has found, by a checksum for
    instance, and may take less of it, or nothing (0). Patterns see folded text; those that ignore
    case are written in lower case. `needs`: a whole text that holds none of these strings need not
    be searched."""

    kind: str
    pattern: Pattern
    accept: Accept = len
    ignore_case: bool = False
    needs: tuple[str, ...] = ()

    @cached_property
    def whole(self) -> re.Pattern[str]:
        return re.compile(self.pattern.full)

    @cached_property
    def growing(self) -> re.Pattern[str]:
        """Finds the first place at which something is open (group 1) or matches."""
        return re.compile(f"({self.pattern.partial})|{self.pattern.full}")

    def prepare(self, *, for_streams: bool) -> None:
        """Compile the patterns; later calls find them done."""
        _ = self.whole
        if for_streams:
            _ = self.growing

    def may_be_in(self, text: str) -> bool:
        return not self.needs or any(needed in text for needed in self.needs)


def find(entities: Sequence[Entity], text: str) -> list[Span]:
    """All spans in a whole text, in order; the longer of two that start together comes first.
    Spans of two kinds may overlap."""
    folded = fold(text)
    lowered = lower(folded)
    spans: list[Span] = []
    for entity in entities:
        seen = lowered if entity.ignore_case else folded
        if entity.may_be_in(seen):
            spans += _scan(entity, seen, 0, is_whole=True)[0]
    return sorted(spans, key=_order)


class Scanner:
    """The same, of a text that comes in pieces. Places count from the start of the text."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        self._entities = tuple(entities)
        self._searches = [entity.growing.search for entity in self._entities]
        self._cursors = [0] * len(self._entities)
        self._text = ""  # folded, from place `_base` on
        self._lowered = ""  # the same in lower case
        self._base = 0

    def push(self, text: str, *, is_last: bool = False) -> tuple[list[Span], int]:
        """New spans in order, and the place before which no further one can start."""
        folded = fold(text)
        self._text += folded
        self._lowered += lower(folded)
        spans: list[Span] = []
        base, end = self._base, self._base + len(self._text)
        for i, entity in enumerate(self._entities):
            seen = self._lowered if entity.ignore_case else self._text
            start = self._cursors[i] - base
            if not is_last:  # most of the time there is nothing, and this is all that is done
                match = self._searches[i](seen, start)
                if match is None or match[1] is not None:
                    self._cursors[i] = end if match is None else base + match.start()
                    continue
            found, cursor = _scan(entity, seen, start, is_last)
            self._cursors[i] = cursor + base
            spans += (Span(s.start + base, s.end + base, s.kind) for s in found)
        settled = min(self._cursors, default=end)
        keep = max(0, settled - self._base - MOST_BEHIND)
        self._text, self._lowered = self._text[keep:], self._lowered[keep:]
        self._base += keep
        return sorted(spans, key=_order), settled


def _scan(entity: Entity, text: str, start: int, is_whole: bool) -> tuple[list[Span], int]:
    """Spans from `start` on, and the place at which the scan has to go on with more text."""
    search = (entity.whole if is_whole else entity.growing).search
    spans: list[Span] = []
    while (match := search(text, start)) is not None:
        if not is_whole and match[1] is not None:
            return spans, match.start()
        taken = entity.accept(match[0])
        if taken:
            spans.append(Span(match.start(), match.start() + taken, entity.kind))
        start = match.start() + max(1, taken)
    return spans, len(text)


def _order(span: Span) -> tuple[int, int, str]:
    return span.start, -span.end, span.kind
