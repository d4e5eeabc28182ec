"""Quantities as people write them: sizes ("64Gi"), durations ("200ms", "1h30m"), rates ("100Gbps").

Sizes follow Kubernetes quantities, with "GB" and "GiB" understood as well. Arithmetic is exact:
what is not a whole number of bytes is rounded down.
"""

from __future__ import annotations

import re
from decimal import Decimal

from novacron.errors import ConfigError

_PREFIXES = "kmgtpe"
_DECIMAL = {"": 1} | {prefix: 1000**power for power, prefix in enumerate(_PREFIXES, start=1)}
_BINARY = {prefix + "i": 1024**power for power, prefix in enumerate(_PREFIXES, start=1)}
_DURATION_UNITS_S = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)")
_DURATION = re.compile(rf"(?:{_NUMBER}\s*[a-z]+\s*)+")


def parse_bytes(text: str | float) -> int:
    """Bytes of "64Gi", "500M", "1.5GB" or a plain number. Raises ConfigError."""
    value, unit = _split(text, "a size", "64Gi or 500M")
    if unit == "m":  # Kubernetes: a thousandth; Docker: a million
        raise ConfigError(f"'{text}' is not a clear size. Write M for 1000^2 or Mi for 1024^2.")
    factor = (_DECIMAL | _BINARY).get(unit.lower().removesuffix("b"))
    if factor is None:
        raise ConfigError(f"'{text}' is not a size: unknown unit. Write for example 64Gi or 500M.")
    return int(value * factor)


def parse_duration_s(text: str | float) -> float:
    """Seconds of "200ms", "5m", "1h30m"; a plain number means seconds. Raises ConfigError."""
    written = str(text).strip()
    if re.fullmatch(_NUMBER, written):
        return float(written)
    parts = _QUANTITY.findall(written)
    if not _DURATION.fullmatch(written) or any(unit not in _DURATION_UNITS_S for _, unit in parts):
        raise ConfigError(f"'{text}' is not a duration. Write for example 200ms, 5s or 1h30m.")
    return float(sum(Decimal(value) * _DURATION_UNITS_S[unit] for value, unit in parts))


def parse_bits_per_s(text: str | float) -> int:
    """Bits per second of "100Gbps", "2.5Gbit/s" or a plain number. Raises ConfigError."""
    written = re.sub(r"\s*(bps|bit/s)$", "", str(text).strip())
    value, unit = _split(written, "a data rate", "100Gbps")
    factor = _DECIMAL.get(unit.lower())
    if factor is None:
        raise ConfigError(f"'{text}' is not a data rate. Write for example 100Gbps.")
    return int(value * factor)


def format_bytes(value: int) -> str:
    """The shortest exact spelling that `parse_bytes` reads back: 67108864 -> "64Mi"."""
    for unit in "EPTGMK":
        factor = _BINARY[unit.lower() + "i"]
        if value >= factor and value % factor == 0:
            return f"{value // factor}{unit}i"
    return str(value)


def _split(text: str | float, expected: str, example: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        raise ConfigError(f"'{text}' is not {expected}. Write for example {example}.")
    return Decimal(match[1]), match[2]
