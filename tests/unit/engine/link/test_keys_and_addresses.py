"""Keys and addresses of links: what is written can be read, and what is wrong is named."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.engine.link.address import EngineAddress
from novacron.engine.link.keys import KeyPair, read_key, read_or_make_key, write_key
from novacron.errors import ConfigError

# the same in every process that collects these tests
KEY = "a8a8e2c74b7940fc2d0eb3c13548aa9c939bb3f8809b72cc33cb86c3604d5800"


def test_a_pair_is_kept_where_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "deeper" / "link.key"
    made = read_or_make_key(file)
    assert read_or_make_key(file) == made == read_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.secret not in repr(made)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "link.key"
    read_or_make_key(file)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key(file)


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "link.key"
    write_key(file, KeyPair.make())
    with pytest.raises(ConfigError, match="already"):
        write_key(file, KeyPair.make())


def test_what_is_no_key_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "link.key"
    file.write_text("hello")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="no key file"):
        read_key(file)
    with pytest.raises(ConfigError, match="novacron cluster key"):
        read_key(tmp_path / "none")


@given(st.sampled_from(["10.0.0.2", "node-7.example.org", "::1", "fe80::1"]), st.integers(1, 65535))
def test_an_address_survives_being_written(host: str, port: int) -> None:
    address = EngineAddress(host, port, KEY)
    assert EngineAddress.parse(str(address)) == address
    assert EngineAddress.parse(f"{KEY}@{address.endpoint}") == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.2:9091", "KEY@HOST:PORT"),
        (f"{KEY}@10.0.0.2", "KEY@HOST:PORT"),
        (f"{KEY}@:9091", "KEY@HOST:PORT"),
        (f"{KEY}@host:70000", "no port 70000"),
        (f"{KEY}@host:port", "KEY@HOST:PORT"),
        (f"{KEY[1:]}@host:9091", "64 hexadecimal digits"),
        ("", "KEY@HOST:PORT"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        EngineAddress.parse(text, "engine_hosts")
    assert str(caught.value).startswith("engine_hosts")
