"""When streams are put on record, and where others reach us."""

from __future__ import annotations

import pytest

from novacron.accounts.accounts import Accounts
from novacron.cli.coordination import coordinate
from novacron.config.load import load
from novacron.errors import ConfigError
from novacron.testing.clock import FakeClock

URL = "http://127.0.0.1:8080"


class NoState:
    """A shared state that nobody asks anything."""


def accounts() -> Accounts:
    nothing = FakeClock()
    return Accounts(
        ledger=nothing,  # type: ignore[arg-type]
        administration=nothing,  # type: ignore[arg-type]
        directory=nothing,  # type: ignore[arg-type]
        policies=nothing,  # type: ignore[arg-type]
        hash_key=str,
        coordinator="me",
        shared=NoState(),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ({"database": "postgresql://me@host/x"}, True),
        ({"database": "sqlite:///x"}, False),
        ({"database": "sqlite:///x", "stream_journal": "on"}, True),
        ({"database": "postgresql://me@host/x", "stream_journal": "off"}, False),
        ({"database": "postgresql://me@host/x", "encryption_key": "env:KEY"}, False),
    ],
)
def test_streams_are_kept_where_that_is_wanted_and_allowed(
    flags: dict[str, object], kept: bool
) -> None:
    together = coordinate(accounts(), load(file=None, env={}, flags=flags), URL)
    assert together is not None
    assert (together.handover is not None) == kept


def test_a_record_that_should_be_encrypted_is_refused() -> None:
    flags = {"stream_journal": "on", "encryption_key": "env:KEY"}
    with pytest.raises(ConfigError, match="not encrypted"):
        coordinate(accounts(), load(file=None, env={}, flags=flags), URL)


@pytest.mark.parametrize(
    ("flags", "address"),
    [({}, URL), ({"coordinator_address": "https://a.b/"}, "https://a.b")],
)
def test_others_reach_us_where_we_say(flags: dict[str, object], address: str) -> None:
    together = coordinate(accounts(), load(file=None, env={}, flags=flags), URL)
    assert together is not None
    assert together.seat.member.address == address


def test_without_a_database_there_is_nobody_to_coordinate_with() -> None:
    assert coordinate(None, load(file=None, env={}, flags={}), URL) is None
