"""Numbers as people read them."""

from __future__ import annotations

import pytest

from novacron.cli.wording import count, size


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**29, "1.5 GiB"), (2**42, "4.0 TiB")],
)
def test_size(number: int, expected: str) -> None:
    assert size(number) == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(7, "7"), (1500, "1.5K"), (6_400_000, "6.4M"), (8.03e9, "8.0B")]
)
def test_count(number: float, expected: str) -> None:
    assert count(number) == expected
