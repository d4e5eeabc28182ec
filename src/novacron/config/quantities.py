"""Quantities and durations as people write them: "64Gi", "1.5GB", "200ms", "5m"."""

from __future__ import annotations

import re

from novacron.errors import ConfigError

_SIZE_UNITS = {
    "": 1,
    **{prefix + "i": 1024**power for power, prefix in enumerate("KMGTPE", start=1)},
    **{prefix: 1000**power for power, prefix in enumerate("KMGTPE", start=1)},
    "k": 1000,
}
_DURATION_UNITS_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def parse_bytes(text: str | int) -> int:
    """Bytes of a Kubernetes quantity ("64Gi", "500M", "1GB") or a plain number."""
    value, unit = _split(str(text), "a size such as 64Gi or 500M")
    unit = unit.removesuffix("B")
    if unit not in _SIZE_UNITS:
        raise ConfigError(f"'{text}' is not a size: unknown unit. Write for example 64Gi or 500M.")
    return int(value * _SIZE_UNITS[unit])


def parse_duration_s(text: str | float) -> float:
    """Seconds of a duration ("200ms", "5m", "1h30m"); a plain number means seconds."""
    text = str(text)
    parts = _QUANTITY.findall(text)
    whole = "".join(text.split()) == "".join(value + unit for value, unit in parts)
    if not parts or not whole or any(unit not in _DURATION_UNITS_S and unit for _, unit in parts):
        raise ConfigError(f"'{text}' is not a duration. Write for example 200ms, 5s or 1h30m.")
    return sum(float(value) * _DURATION_UNITS_S[unit or "s"] for value, unit in parts)


def _split(text: str, expected: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"'{text}' is not {expected}.")
    return float(match[1]), match[2]
