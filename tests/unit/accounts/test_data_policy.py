"""Policies of a database, kept and looked at while a server runs."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from novacron.accounts.data_policy import DataPolicy, StoredPolicies
from novacron.accounts.database import tables
from novacron.accounts.database.store import Store
from novacron.config.tenants import TenantPolicies, TenantPolicy, parse_policies
from novacron.errors import AccountNotFound, InvalidRequest

WEEK = DataPolicy(record_prompts=True, retain={"prompts": "7d"}, regions=("eu-central",))


@pytest.fixture
def store(database_url: str) -> Store:
    store = Store(database_url)
    store.tenants.create("acme")
    return store


def test_one_is_set_changed_and_removed(store: Store) -> None:
    with pytest.raises(AccountNotFound):
        store.policies.get("acme")
    for policy in (WEEK, DataPolicy(response_cache="off")):
        assert store.policies.set("acme", policy) == policy
        assert store.policies.get("acme") == policy
        assert store.policies.list() == {"acme": policy}
    store.policies.remove("acme")
    assert store.policies.list() == {}
    with pytest.raises(AccountNotFound):
        store.policies.remove("acme")
    store.close()


def test_what_cannot_be_is_not_kept(store: Store) -> None:
    with pytest.raises(AccountNotFound, match="nobody"):
        store.policies.set("nobody", WEEK)
    for policy, said in (
        (DataPolicy(retain={"prompts": "for ever"}), "prompts of 'acme'"),
        (DataPolicy(retain={"letters": "7d"}), "letters"),
        (DataPolicy(regions=("no region!",)), "no region!"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            store.policies.set("acme", policy)
    assert store.policies.list() == {}
    store.close()


def test_a_server_sees_changes_and_its_settings_go_first(store: Store) -> None:
    store.tenants.create("clinic")
    store.policies.set("acme", WEEK)
    stored = StoredPolicies(store.policies)
    listed = ({"name": "clinic", "regions": ["eu-west"]}, {"name": "*", "response_cache": "off"})
    policies = TenantPolicies(parse_policies(listed).by_name, stored)
    week = TenantPolicy(
        record_prompts=True, regions=("eu-central",), retain_s={"prompts": 7 * 86_400.0}
    )
    assert policies.of("acme") == week
    assert policies.of("other").response_cache == "off"
    assert policies.record_prompts
    assert set(policies.named) == {"acme", "clinic"}
    store.policies.set("clinic", WEEK)
    store.policies.set("acme", DataPolicy(response_cache="semantic"))
    assert policies.of("acme") == week
    stored.refresh()
    assert policies.of("acme").response_cache == "semantic"
    assert policies.of("clinic").regions == ("eu-west",)
    assert not policies.record_prompts
    store.policies.remove("acme")
    stored.refresh()
    assert policies.of("acme").response_cache == "off"
    store.close()


def test_one_that_is_not_understood_changes_nothing(store: Store) -> None:
    store.policies.set("acme", WEEK)
    stored = StoredPolicies(store.policies)
    known = stored["acme"]
    store.policies.remove("acme")
    with store.database.writing() as connection:
        odd = {"tenant_id": "acme", "policy": {"regions": ["a region of tomorrow!"]}}
        connection.execute(insert(tables.tenant_policies).values(odd))
    stored.refresh()
    assert stored["acme"] == known
    store.close()
