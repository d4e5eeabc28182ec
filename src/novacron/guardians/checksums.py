"""Checks that real numbers pass and most others do not."""

from __future__ import annotations

from typing import Final

_IBAN_LENGTHS: Final = {  # by country, from the registry of ISO 13616
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28,
    "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23,
    "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24,
    "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23,
    "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip


def passes_luhn(digits: str) -> bool:
    """The check digit of cards: every second digit from the right counts double."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """A number of the length and the first digits that card networks give out, with its check
    digit."""
    length, first_two, first_four = len(digits), int(digits[:2]), int(digits[:4])
    is_known = (
        (digits[0] == "4" and length in (13, 16, 19))
        or (length == 16 and (51 <= first_two <= 55 or 2221 <= first_four <= 2720))
        or (length == 15 and first_two in (34, 37))
        or (length == 14 and (first_two in (36, 38, 39) or 300 <= int(digits[:3]) <= 305))
        or (16 <= length <= 19 and (first_four == 6011 or first_two in (35, 62, 64, 65)))
        or (12 <= length <= 19 and first_two in (50, 56, 57, 58, 63, 67))
    )
    return is_known and len(set(digits)) > 1 and passes_luhn(digits)


def is_iban(compact: str) -> bool:
    """Country, two check digits, account; upper case, without spaces. ISO 7064's mod 97."""
    if _IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    turned = compact[4:] + compact[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


def is_ssn(digits: str) -> bool:
    """A social security number of the USA as it may be given out; it has no check digit."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def is_ipv4(dotted: str) -> bool:
    parts = dotted.split(".")
    return len(parts) == 4 and all(int(p) < 256 and str(int(p)) == p for p in parts)
