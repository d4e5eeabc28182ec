"""Personal data: addresses, phone numbers, cards, accounts. Numbers with a checksum have to pass
it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from novacron.guardians.checksums import is_card, is_iban, is_ipv4, is_ssn
from novacron.guardians.folding import ZERO_WIDTH
from novacron.guardians.patterns import (
    Pattern,
    chars,
    either,
    maybe,
    not_before,
    seq,
    text,
    times,
)
from novacron.guardians.scanning import Accept, Entity

VERSION: Final = "1"

_DIGITS: Final = tuple("0123456789")
_DIGIT: Final = chars("0-9")
_ALNUM: Final = chars("A-Za-z0-9")
_GAP: Final = chars(f" \\-{ZERO_WIDTH}")
_PHONE_GAP: Final = times(chars(f" \\-./(){ZERO_WIDTH}"), 0, 2)
_NOT_DIGITS: Final = re.compile(r"[^0-9]")
_GAPS: Final = re.compile(f"[ \\-{ZERO_WIDTH}]")


def _digits(candidate: str) -> str:
    return _NOT_DIGITS.sub("", candidate)


def _all_if(is_real: Callable[[str], bool]) -> Accept:
    """All of a candidate or nothing."""
    return lambda candidate: len(candidate) if is_real(candidate) else 0


def _card(candidate: str) -> int:
    """The longest beginning that is a card and is not followed by a digit."""
    for end in range(len(candidate), 11, -1):
        ends_a_number = candidate[end - 1].isdigit() and not candidate[end : end + 1].isdigit()
        if ends_a_number and is_card(_digits(candidate[:end])):
            return end
    return 0


def _iban(candidate: str) -> int:
    """Words may follow behind a gap; the country tells how long the number is."""
    for end in range(len(candidate), 14, -1):
        ends_a_word = candidate[end - 1].isalnum() and not candidate[end : end + 1].isalnum()
        if ends_a_word and is_iban(_GAPS.sub("", candidate[:end]).upper()):
            return end
    return 0


def _is_international(candidate: str) -> bool:
    number = _digits(candidate)
    if candidate[0] == "+":
        return 8 <= len(number) <= 15 and number[0] != "0"
    return 10 <= len(number) <= 17 and number[2] != "0" and len(number) < len(candidate)


def _is_american(candidate: str) -> bool:
    number = _digits(candidate)
    return number[0] >= "2" and number[3] >= "2"


def _is_national(candidate: str) -> bool:
    return 9 <= len(_digits(candidate)) <= 12


def _run(first: Pattern, more: Pattern, gap: Pattern, least: int, most: int) -> Pattern:
    return seq(first, times(seq(maybe(gap), more), least, most))


_LOCAL: Final = "A-Za-z0-9._%+\\-"
_LABEL: Final = times(chars("A-Za-z0-9\\-"), 1, 63)
_EMAIL: Final = Entity(
    "EMAIL",
    seq(
        times(chars(_LOCAL), 1, 64),
        text("@"),
        times(seq(_LABEL, text(".")), 1, 5),
        times(chars("A-Za-z"), 2, 24),
        not_before("A-Za-z0-9\\-"),
    ),
    needs=("@",),
)
_CARD: Final = Entity(
    "CARD",
    seq(_run(chars("0-9", after="0-9"), _DIGIT, _GAP, 11, 18), not_before("0-9")),
    accept=_card,
    needs=_DIGITS,
)
_IBAN: Final = Entity(
    "IBAN",
    seq(
        chars("A-Za-z", after="A-Za-z0-9"),
        chars("A-Za-z"),
        times(_DIGIT, 2, 2),
        times(seq(maybe(_GAP), _ALNUM), 11, 30),
        not_before("A-Za-z0-9"),
    ),
    accept=_iban,
    needs=_DIGITS,
)
_INTERNATIONAL: Final = seq(
    either(text("+", after="0-9A-Za-z+."), text("00", after="0-9A-Za-z+.", goes_on="0-9")),
    times(seq(_PHONE_GAP, _DIGIT), 8, 15),
    not_before("0-9"),
)
_THREE: Final = times(_DIGIT, 3, 3)
_NOT_INSIDE: Final = "0-9A-Za-z.\\-"
_AMERICAN: Final = seq(
    either(
        seq(text("(", after=_NOT_INSIDE), _THREE, text(")"), maybe(text(" "))),
        seq(chars("0-9", after=_NOT_INSIDE), _DIGIT, _DIGIT, chars(".\\-")),
    ),
    _THREE,
    chars(".\\-"),
    times(_DIGIT, 4, 4),
    not_before("0-9\\-"),
)
_NATIONAL: Final = seq(
    text("0", after="0-9A-Za-z.,\\-", goes_on="0-9"),
    chars("1-9"),
    times(_DIGIT, 1, 3),
    times(chars(" /\\-"), 1, 3),
    times(_DIGIT, 3, 8),
    times(seq(chars(" \\-"), times(_DIGIT, 2, 5)), 0, 2),
    not_before("0-9"),
)
_SSN: Final = Entity(
    "SSN",
    seq(
        chars("0-9", after="0-9\\-"), _DIGIT, _DIGIT, chars(" \\-"), _DIGIT, _DIGIT,
        chars(" \\-"), times(_DIGIT, 4, 4), not_before("0-9\\-"),
    ),
    accept=_all_if(lambda candidate: is_ssn(_digits(candidate))),
    needs=_DIGITS,
)  # fmt: skip
_IP: Final = Entity(
    "IP",
    seq(
        chars("0-9", after="0-9."),
        times(_DIGIT, 0, 2),
        text("."),
        times(seq(times(_DIGIT, 1, 3), text(".")), 2, 2),
        times(_DIGIT, 1, 3),
        not_before("0-9"),
    ),
    accept=_all_if(is_ipv4),
    needs=_DIGITS,
)

PII: Final = (
    _EMAIL,
    Entity("PHONE", _INTERNATIONAL, _all_if(_is_international), needs=_DIGITS),
    Entity("PHONE", _AMERICAN, _all_if(_is_american), needs=_DIGITS),
    Entity("PHONE", _NATIONAL, _all_if(_is_national), needs=_DIGITS),
    _CARD,
    _IBAN,
    _SSN,
    _IP,
)
