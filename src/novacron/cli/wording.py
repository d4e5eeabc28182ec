"""Numbers as people read them."""

from __future__ import annotations


def size(num_bytes: float) -> str:
    """1610612736 -> 1.5 GiB"""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if num_bytes >= 1024**power:
            return f"{num_bytes / 1024**power:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def counted(number: int, noun: str) -> str:
    """1 -> 1 file, 2 -> 2 files"""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def count(number: float) -> str:
    """1234567 -> 1.2M"""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return f"{number:.0f}"
