"""Texts cut into pieces at random, through the window that holds streams back: does anything that
is to be masked get out?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from novacron.guardians import credentials, pii
from novacron.guardians.guardian import Duty, SpanGuardian
from novacron.guardians.masking import Masker
from novacron.guardians.records import Outcome, Stage
from novacron.guardians.scanning import find
from novacron.guardians.window import StreamWindow

_ENTITIES: Final = (*pii.PII, *credentials.CREDENTIALS)
_PIECES: Final = (
    "Mail me: ", "ann.lee+x@mail.example.org", "a@b.co", "@", ".", "x" * 70, " ", "\n", "-", "(",
    "4111 1111 1111 1111", "4111111111111112", "5500-0000-0000-0004", "1 ", "12", "9" * 25,
    "DE89 3704 0044 0532 0130 00", "de89370400440532013000", "GB82WEST12345698765432", " and so",
    "+49 (0)30 1234567", "0049 30 1234567", "555-867-5309", "(212) 555-0187", "030 1234567",
    "219-09-9999", "192.168.0.1", "999.1.1.1", "\uff14\uff11", "\u200b", "The quick brown fox. ",
    "sk-abcDEF0123456789abcdef", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18, "pwd=Tr0ub4dor&3",
    "eyJhbGciOi.eyJzdWIiOi.SflKxwRJSM", "-----BEGIN RSA PRIVATE KEY-----\nMIIE", "://u:pw12@h",
)  # fmt: skip
_MOST_PIECES: Final = 8
_MOST_CUTS: Final = 20


@dataclass(frozen=True)
class Chunkings:
    """`num_leaks`: chunkings whose text came out other than the whole text masked at once.
    `most_held`: characters that were held back at any time."""

    num_chunkings: int
    num_spans: int
    num_leaks: int
    most_held: int


def try_chunkings(count: int, seed: int) -> Chunkings:
    dice = random.Random(f"chunkings/{seed}")
    duty = Duty(name="all", stages=frozenset(Stage), action=Outcome.MASK)
    guardian = SpanGuardian(duty, _ENTITIES, "1")
    num_spans = num_leaks = most_held = 0
    for _ in range(count):
        text = "".join(dice.choices(_PIECES, k=dice.randint(1, _MOST_PIECES)))
        spans = find(_ENTITIES, text)
        masker = Masker()
        window = StreamWindow((guardian,), masker)
        out = []
        for piece in _cut(text, dice):
            out.append(window.push(piece).text)
            most_held = max(most_held, window.num_held)
        out.append(window.push("", is_last=True).text)
        num_spans += len(spans)
        num_leaks += "".join(out) != Masker().mask(text, spans)
    return Chunkings(count, num_spans, num_leaks, most_held)


def _cut(text: str, dice: random.Random) -> Sequence[str]:
    places = {dice.randrange(len(text) + 1) for _ in range(dice.randrange(_MOST_CUTS))}
    return [text[start:end] for start, end in pairwise(sorted({0, len(text), *places}))]
