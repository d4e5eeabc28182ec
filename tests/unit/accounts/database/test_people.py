from __future__ import annotations

import pytest

from novacron.accounts.database.connection import Database
from novacron.accounts.database.people import Keys, Roles, Tenants, Users
from novacron.accounts.records import StoredKey
from novacron.errors import AccountConflict, AccountNotFound, InvalidRequest


def make_key(database: Database, prefix: str = "nk_abc", **more: object) -> StoredKey:
    return Keys(database).create(
        prefix=prefix, hash="$argon2id$...", tenant_id="acme", scopes=("inference",), **more
    )  # type: ignore[arg-type]


@pytest.fixture
def acme(database: Database) -> Database:
    Tenants(database).create("acme", name="Acme Ltd")
    Users(database).create("ann", tenant_id="acme", roles=("admin",))
    return database


def test_people_come_back_as_they_were_put(acme: Database) -> None:
    assert Tenants(acme).get("acme").name == "Acme Ltd"
    assert Users(acme).list(tenant_id="acme") == (Users(acme).get("ann"),)
    role = Roles(acme).create("auditor", permissions=("audit:read", "usage:read"))
    assert Roles(acme).list() == (role,)
    key = make_key(acme, user_id="ann", roles=("user",), expires_at=2_000_000_000)
    assert Keys(acme).find_prefix("nk_abc") == key == Keys(acme).get(key.id)
    assert Keys(acme).find_prefix("nk_abd") is None


def test_ids_are_taken_once_and_are_plain(acme: Database) -> None:
    with pytest.raises(AccountConflict, match="acme"):
        Tenants(acme).create("acme")
    for bad in ("", "a b", "-a", "a/b", "x" * 129, "a\n"):
        with pytest.raises(InvalidRequest):
            Tenants(acme).create(bad)


def test_who_belongs_to_nobody_is_refused(acme: Database) -> None:
    with pytest.raises(InvalidRequest, match="does not exist"):
        Users(acme).create("bob", tenant_id="nobody")
    Tenants(acme).create("other")
    with pytest.raises(InvalidRequest, match="belongs to the tenant 'acme'"):
        Keys(acme).create(prefix="p", hash="h", tenant_id="other", user_id="ann")
    with pytest.raises(AccountConflict, match="users or keys"):
        Tenants(acme).remove("acme")


def test_what_is_not_there_is_told(acme: Database) -> None:
    for what in (Tenants, Users, Roles, Keys):
        rows = what(acme)
        for call in (rows.get, rows.remove, rows.change):
            with pytest.raises(AccountNotFound, match="nobody"):
                call("nobody")


def test_a_replaced_key_overlaps_with_its_successor(acme: Database) -> None:
    old = make_key(acme)
    new = Keys(acme).replace(old.id, prefix="nk_new", hash="h2", overlap_until=1000)
    old = Keys(acme).get(old.id)
    assert old.replaced_by == new.id
    assert (new.scopes, new.tenant_id) == (old.scopes, old.tenant_id)
    assert old.is_valid(999)
    assert not old.is_valid(1000)
    assert new.is_valid(1000)
    with pytest.raises(InvalidRequest, match="replaced"):
        Keys(acme).replace(old.id, prefix="nk_3", hash="h3", overlap_until=2000)
    assert Keys(acme).list() == tuple(sorted((old, new), key=lambda key: key.id))


def test_a_revoked_or_expired_key_is_not_valid(acme: Database) -> None:
    key = make_key(acme, expires_at=500)
    assert key.is_valid(499)
    assert not key.is_valid(500)
    assert not Keys(acme).revoke(key.id, at=100).is_valid(100)


def test_uses_are_noted_together(acme: Database) -> None:
    key = make_key(acme)
    Keys(acme).note_use({key.id: 77, "key_gone": 78})
    assert Keys(acme).get(key.id).last_used_at == 77
