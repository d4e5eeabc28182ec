"""When streams are put on record, and where others reach us."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from novacron.accounts.accounts import Accounts
from novacron.accounts.database.ledger_book import LedgerBook
from novacron.accounts.database.store import Store
from novacron.accounts.posting import Reserve, Settle, Usage
from novacron.accounts.quota import Account
from novacron.accounts.usage import UsageQuestion
from novacron.accounts.wish import Wish
from novacron.cli.coordination import coordinate
from novacron.cli.privacy import shared_retention
from novacron.config.load import load
from novacron.coordination.lease import LeaseLost
from novacron.encryption.key_places import KeyPlace
from novacron.encryption.master_keys import new_master_key
from novacron.errors import ConfigError
from novacron.testing.clock import FakeClock

URL = "http://127.0.0.1:8080"


class NoState:
    """A shared state that nobody asks anything."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/accounts.db")
    yield store
    store.close()


def accounts(data_keys: KeyPlace | None = None, **more: Any) -> Accounts:
    nothing: Any = FakeClock()
    parts = {"administration": nothing, "coordinator": "me", "shared": NoState(), **more}
    return Accounts(
        ledger=nothing,
        directory=nothing,
        policies={},  # type: ignore[arg-type]
        hash_key=str,
        data_keys=data_keys,
        **parts,
    )


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ({"database": "postgresql://me@host/x"}, True),
        ({"database": "sqlite:///x"}, False),
        ({"database": "sqlite:///x", "stream_journal": "on"}, True),
        ({"database": "postgresql://me@host/x", "stream_journal": "off"}, False),
    ],
)
def test_streams_are_kept_where_that_is_wanted_and_allowed(
    flags: dict[str, object], kept: bool
) -> None:
    together = coordinate(accounts(), load(file=None, env={}, flags=flags), URL)
    assert together is not None
    assert (together.handover is not None) == kept


def test_a_record_that_must_be_encrypted_and_cannot_be_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {"stream_journal": "on", "encryption_key": "env:KEY"}
    settings = load(file=None, env={}, flags=flags)
    monkeypatch.delenv("KEY", raising=False)
    with pytest.raises(ConfigError, match="KEY"):
        coordinate(accounts(store.data_keys()), settings, URL)
    monkeypatch.setenv("KEY", new_master_key())
    together = coordinate(accounts(store.data_keys()), settings, URL)
    assert together is not None
    assert together.handover is not None
    assert together.handover.seal_request("s/t", b"hello") != b"hello"
    monkeypatch.setenv("KEY", new_master_key())
    with pytest.raises(ConfigError, match="rotate"):
        coordinate(accounts(store.data_keys()), settings, URL)


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


def test_usage_is_purged_by_the_one_server_that_has_the_duty(store: Store) -> None:
    policies = [{"name": "*", "retain": {"usage": "1h"}}]
    settings = load(file=None, env={}, flags={"tenant_policies": policies})
    shared = store.shared_state()
    seats = []
    for name in ("first", "second"):
        one = accounts(administration=store, coordinator=name, shared=shared)
        together = coordinate(one, settings, URL)
        assert together is not None
        together.seat.beat()
        seats.append(together.seat)
    first, second = seats
    fence = first.fence_of("retention")
    assert fence is not None
    use_long_ago(store)
    second.work()
    assert num_used(store) == 1
    first.work()
    assert num_used(store) == 0
    first.close()
    second.beat()
    use_long_ago(store)
    duty = shared_retention(settings, accounts(administration=store))
    assert duty is not None
    with pytest.raises(LeaseLost):
        duty.run(fence)
    second.work()
    assert num_used(store) == 0


def use_long_ago(store: Store) -> None:
    book = LedgerBook(store.database, clock_ms=lambda: 0)
    account, wish = Account("default"), Wish(prompts=(3,), answers=(4,), model="m", model_len=99)
    id = uuid4().hex
    book.post([Reserve(id, account, wish)])
    book.post([Settle(id, account, Usage(prompt_tokens=3, cached_tokens=0, output_tokens=4))])


def num_used(store: Store) -> int:
    return sum(row.requests for row in store.usage(UsageQuestion(since=0)))
