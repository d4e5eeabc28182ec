"""Keys of a real database, through authentication."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from novacron.accounts.database.store import Store
from novacron.accounts.key_directory import AccountKeys
from novacron.errors import DatabaseUnavailable, Unauthenticated
from novacron.gateway.identity.key_format import NewKey, new_key
from novacron.gateway.identity.key_hash import hash_key, is_key_of
from novacron.gateway.identity.permissions import BUILT_IN
from novacron.gateway.identity.principal import Principal
from novacron.gateway.identity.stored_keys import StoredKeys
from novacron.testing.waiting import until


class Setup:
    def __init__(self, store: Store) -> None:
        self.people = store
        self.now = time.time()
        self.stored = StoredKeys(
            AccountKeys(self.people), is_key_of, roles=BUILT_IN, clock=lambda: self.now
        )
        self.people.tenants.create("acme")
        self.people.users.create("ann", tenant_id="acme", roles=("scraper",))
        self.people.roles.create("scraper", permissions=("llm:metrics:read",))

    async def who(self, key: NewKey) -> Principal | None:
        return await self.stored.authenticate(key.text.encode())

    def add(self, **fields: object) -> NewKey:
        key = new_key()
        self.people.keys.create(
            prefix=key.prefix,
            hash=hash_key(key.text),
            tenant_id="acme",
            **fields,  # type: ignore[arg-type]
        )
        return key


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(Store(f"sqlite:///{tmp_path / 'accounts.db'}"))


async def test_a_key_has_its_own_roles_or_those_of_its_user(setup: Setup) -> None:
    of_user = await setup.who(setup.add(user_id="ann"))
    assert of_user is not None
    assert (of_user.tenant_id, of_user.user_id) == ("acme", "ann")
    assert of_user.permissions == {"llm:metrics:read"}
    own = await setup.who(setup.add(user_id="ann", roles=("user",), scopes=("llm:models:*",)))
    assert own is not None
    assert own.permissions == {"llm:models:read"}
    nobody_s = await setup.who(setup.add())
    assert nobody_s is not None
    assert nobody_s.permissions == frozenset()


async def test_who_is_disabled_is_out_and_comes_back(setup: Setup) -> None:
    key = setup.add(user_id="ann")
    for table, id in ((setup.people.users, "ann"), (setup.people.tenants, "acme")):
        assert await setup.who(key) is not None
        table.change(id, disabled=True)
        setup.now += 10
        assert await setup.who(key) is None
        table.change(id, disabled=False)


async def test_a_replaced_key_works_until_its_overlap_is_over(setup: Setup) -> None:
    old, new = setup.add(user_id="ann"), new_key()
    first = await setup.who(old)
    assert first is not None
    end = int(setup.now) + 100
    setup.people.keys.replace(
        first.key_id, prefix=new.prefix, hash=hash_key(new.text), overlap_until=end
    )
    setup.now += 10
    both = [await setup.who(key) for key in (old, new)]
    assert [one.permissions for one in both if one] == [first.permissions] * 2
    setup.now = end
    assert await setup.who(new) is not None
    with pytest.raises(Unauthenticated, match="replaced"):
        await setup.who(old)


async def test_a_revoked_key_is_out_at_once_when_told(setup: Setup) -> None:
    key = setup.add(user_id="ann", expires_at=int(setup.now) + 5)
    principal = await setup.who(key)
    assert principal is not None
    setup.people.keys.revoke(principal.key_id)
    setup.stored.forget(principal.key_id)
    setup.now += 1
    with pytest.raises(Unauthenticated, match="revoked"):
        await setup.who(key)


async def test_a_use_is_noted_of_who_has_the_key_not_of_who_knows_its_public_part(
    setup: Setup,
) -> None:
    key, other = setup.add(), new_key()
    [stored] = setup.people.keys.list()
    forged = other.text.replace(other.prefix, key.prefix)
    assert await setup.stored.authenticate(forged.encode()) is None
    assert setup.people.keys.get(stored.id).last_used_at is None
    assert await setup.who(key) is not None
    await until(lambda: setup.people.keys.get(stored.id).last_used_at is not None)


async def test_a_database_that_cannot_be_written_keeps_no_key_out(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else may have the write lock for longer than is waited for it."""
    tried = threading.Event()

    def fails(ids_at: dict[str, int]) -> None:
        tried.set()
        raise DatabaseUnavailable("database is locked")

    key = setup.add(user_id="ann")
    monkeypatch.setattr(setup.people.keys, "note_use", fails)
    assert await setup.who(key) is not None
    await until(tried.is_set)
