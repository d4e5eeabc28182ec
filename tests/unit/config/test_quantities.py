from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.config.quantities import (
    format_bytes,
    parse_bits_per_s,
    parse_bytes,
    parse_duration_s,
)
from novacron.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64Gi", 64 * 2**30),
        ("1Ti", 2**40),
        ("500M", 500_000_000),
        ("1.5GB", 1_500_000_000),
        ("2 GiB", 2 * 2**30),
        ("4g", 4_000_000_000),
        ("1k", 1000),
        ("1Ki", 1024),
        ("12", 12),
        (12, 12),
        (1e9, 10**9),
        ("1e3", 1000),
        ("1E", 10**18),
        ("0.3Ki", 307),
        ("9007199254740993", 9007199254740993),  # would not survive a float
        ("7B", 7),
    ],
)
def test_sizes(text: str | float, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text", ["", "Gi", "64Qi", "-1Gi", "1,5G", "1 2", "64 G i", "nan", "1e400"]
)
def test_what_is_not_a_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"64Gi"):
        parse_bytes(text)


def test_a_lone_m_is_refused_because_its_meaning_depends_on_the_reader() -> None:
    with pytest.raises(ConfigError, match="Write M for"):
        parse_bytes("100m")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200ms", 0.2),
        ("5s", 5.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("1.5s", 1.5),
        ("2d", 172800.0),
        ("3us", 3e-6),
        ("7ns", 7e-9),
        ("30", 30.0),
        (30, 30.0),
        (0.25, 0.25),
        (1e-7, 1e-7),
        ("0", 0.0),
    ],
)
def test_durations(text: str | float, expected: float) -> None:
    assert parse_duration_s(text) == expected


@pytest.mark.parametrize("text", ["", "s", "-5s", "5x", "1h30", "5 minutes", "inf", "nan", "5s!"])
def test_what_is_not_a_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="200ms"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100Gbps", 10**11), ("2.5Gbit/s", 2_500_000_000), ("64kbps", 64_000), ("9", 9)],
)
def test_data_rates(text: str, expected: int) -> None:
    assert parse_bits_per_s(text) == expected


@pytest.mark.parametrize("text", ["", "fast", "10GiB", "10Gi", "-1bps"])
def test_what_is_not_a_data_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="100Gbps"):
        parse_bits_per_s(text)


@given(st.integers(min_value=0, max_value=2**70))
def test_a_formatted_size_reads_back_as_itself(value: int) -> None:
    assert parse_bytes(format_bytes(value)) == value


@given(st.integers(min_value=1, max_value=1023), st.sampled_from("KMGTPE"))
def test_whole_binary_multiples_are_written_as_such(count: int, unit: str) -> None:
    text = f"{count}{unit}i"
    assert format_bytes(parse_bytes(text)) == text


@given(st.floats(min_value=1e-9, max_value=1e15))
def test_a_duration_in_seconds_reads_back_as_itself(value: float) -> None:
    assert parse_duration_s(f"{value!r}s") == value
    assert parse_duration_s(repr(value)) == value


@given(st.text(max_size=12))
def test_any_text_gives_a_number_or_a_config_error(text: str) -> None:
    for parse in (parse_bytes, parse_duration_s, parse_bits_per_s):
        with contextlib.suppress(ConfigError):
            assert parse(text) >= 0
