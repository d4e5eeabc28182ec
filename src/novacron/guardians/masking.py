"""Placeholders for what may not be seen: the same one for the same value, all through a call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from novacron.guardians.folding import ZERO_WIDTH, fold
from novacron.guardians.records import Span

_SEPARATORS = str.maketrans("", "", " -./()\t\n" + ZERO_WIDTH)


class Masker:
    """Gives out `[EMAIL_1]`, `[EMAIL_2]`, `[CARD_1]`, ... in the order in which values come up.

    Two spellings of a value (spaces in a card's number, case of an address) are one value.
    """

    def __init__(self) -> None:
        self._placeholders: dict[tuple[str, str], str] = {}
        self._counts: Counter[str] = Counter()

    def placeholder(self, kind: str, value: str) -> str:
        key = kind, fold(value).translate(_SEPARATORS).casefold()
        if key not in self._placeholders:
            self._counts[kind] += 1
            self._placeholders[key] = f"[{kind}_{self._counts[kind]}]"
        return self._placeholders[key]

    def mask(self, text: str, spans: Iterable[Span]) -> str:
        """`text` with a placeholder for each span. Of overlapping ones, what the first leaves of
        the second has a placeholder, too."""
        pieces, at = [], 0
        for span in sorted(spans, key=lambda span: (span.start, -span.end, span.kind)):
            if span.end <= at:
                continue
            pieces.append(text[at : span.start])  # nothing where they overlap
            pieces.append(self.placeholder(span.kind, text[max(at, span.start) : span.end]))
            at = span.end
        return "".join((*pieces, text[at:]))
