"""Text that goes round in circles, as models do that have lost their way."""

from __future__ import annotations

import re
from typing import Final

from novacron.guardians.guardian import LocalGuardian
from novacron.guardians.records import Subject, Verdict

_LOOKED_AT: Final = 1200  # characters from the end
_MOST_PERIOD: Final = 300
_LEAST_REPEATED: Final = 60  # characters of one repeated piece after the other
_LEAST_TIMES: Final = 4  # that the piece stands there
_LEAST_WORDS: Final = 60
_LEAST_VARIETY: Final = 0.18  # different word triples, of all
_WORD: Final = re.compile(r"\w+")
_RULER: Final = re.compile(r"[\W_\d]*")


class Degeneration(LocalGuardian):
    """Finds an end that is one piece over and over, and long stretches with few different words.

    Rulers and tables (lines of dashes, spaces, digits) are no degeneration until they are long.
    """

    @property
    def version(self) -> str:
        return "1"

    def check(self, subject: Subject) -> Verdict:
        tail = subject.text[-_LOOKED_AT:]
        if _repeats(tail):
            return self._found("repetition")
        variety = word_variety(tail)
        if variety < _LEAST_VARIETY:
            return self._found("few_words", variety)
        return self._passed(min(1.0, variety))


def _repeats(tail: str) -> bool:
    """Whether the end of the text is a piece that stands there at least four times."""
    stripped = tail.rstrip()
    for period in range(1, min(_MOST_PERIOD, len(stripped) // _LEAST_TIMES) + 1):
        piece = stripped[-period:]
        num = max(_LEAST_TIMES, -(-_LEAST_REPEATED // period))
        if _RULER.fullmatch(piece):
            num *= 6
        if num * period <= len(stripped) and stripped.endswith(piece * num):
            return True
    return False


def word_variety(text: str) -> float:
    """Different triples of words, as a share of all; 1 for a text too short to tell."""
    found = [word.lower() for word in _WORD.findall(text)]
    if len(found) < _LEAST_WORDS:
        return 1.0
    triples = list(zip(found, found[1:], found[2:], strict=False))
    return len(set(triples)) / len(triples)
