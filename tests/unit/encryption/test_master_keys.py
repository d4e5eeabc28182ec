"""Where master keys come from, and what is said when they do not."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from novacron.config.cache import CacheConfig
from novacron.encryption.key_sources import open_master_keys
from novacron.encryption.master_keys import (
    KeysUnavailable,
    MasterKeys,
    parse_master_keys,
)
from novacron.errors import ConfigError
from novacron.testing.fake_vault import FakeVault, running_vault

OLD, NEW = (base64.b64encode(bytes(range(first, first + 32))).decode() for first in (0, 32))


def id_of(text: str) -> str:
    return parse_master_keys(text, "a test")[0].id


@pytest.fixture(scope="module")
def a_vault() -> Iterator[FakeVault]:
    with running_vault() as vault:
        yield vault


@pytest.fixture
def vault(a_vault: FakeVault) -> FakeVault:
    a_vault.versions, a_vault.status, a_vault.num_requests = [OLD, NEW], 200, 0
    return a_vault


def keys_in(vault: FakeVault, token: str = FakeVault.token, name: str = "key") -> MasterKeys:
    environment = {"VAULT_TOKEN": token, "VAULT_NAMESPACE": "team"}
    return open_master_keys(vault.source(name), environment)


def test_a_variable_holds_the_current_key_and_older_ones() -> None:
    keys = open_master_keys("env:MASTER", {"MASTER": f"{NEW}, {OLD}"})
    assert keys.current().id == id_of(NEW)
    assert {id_of(OLD), id_of(NEW)} == {
        key.id for id in (id_of(OLD), id_of(NEW)) if (key := keys.find(id))
    }
    assert keys.find("0" * 16) is None


def test_hexadecimal_base64_and_its_form_for_addresses_are_the_same_key() -> None:
    raw = bytes(range(200, 232))
    forms = (raw.hex(), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode())
    assert {parse_master_keys(form, "a test")[0].secret for form in forms} == {raw}


def test_a_file_is_read_each_time_and_may_have_comments(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(f"# of May\n{OLD}\n")
    keys = open_master_keys(f"file:{file}", {})
    assert keys.current().id == id_of(OLD)
    file.write_text(f"{NEW}  # of June\n{OLD}\n")
    assert (keys.current().id, keys.find(id_of(OLD)) is None) == (id_of(NEW), False)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(NEW)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others may read .*chmod 600"):
        open_master_keys(f"file:{file}", {}).current()


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), ("abc", "key 1 .* is not 32 bytes"), (f"{OLD} {OLD[:-5]}", "key 2")],
)
def test_what_is_no_key_is_said_without_showing_it(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        open_master_keys("env:MASTER", {"MASTER": text}).current()
    assert not text or text[:3] not in str(error.value).replace("base64", "")


def test_a_file_that_is_not_there_is_said_with_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="novacron encryption new-key"):
        open_master_keys(f"file:{tmp_path / 'none'}", {}).current()


def test_vaults_newest_version_is_current_and_older_ones_are_found(vault: FakeVault) -> None:
    keys = keys_in(vault)
    assert keys.current().id == id_of(NEW)
    old = keys.find(id_of(OLD))
    assert old is not None
    assert old.id == id_of(OLD)
    assert vault.namespaces == {"team"}


def test_a_version_that_was_deleted_in_vault_is_passed_over(vault: FakeVault) -> None:
    vault.versions = [OLD, None, NEW]
    keys = keys_in(vault)
    assert keys.find(id_of(OLD)) is not None
    assert keys.find("0" * 16) is None


@pytest.mark.parametrize(
    ("token", "name", "versions", "status", "error", "said"),
    [
        ("wrong", "key", [NEW], 200, ConfigError, "refuses .*403.*policy"),
        (FakeVault.token, "other", [NEW], 200, ConfigError, "no field 'other'"),
        (FakeVault.token, "key", [], 200, ConfigError, "vault kv put"),
        (FakeVault.token, "key", ["short"], 200, ConfigError, "is not 32 bytes"),
        (FakeVault.token, "key", [NEW], 503, KeysUnavailable, "status 503"),
    ],
)
def test_what_vault_refuses_is_said_and_its_token_is_not(
    vault: FakeVault,
    token: str,
    name: str,
    versions: list[str | None],
    status: int,
    error: type[Exception],
    said: str,
) -> None:
    vault.versions, vault.status = versions, status
    with pytest.raises(error, match=said) as raised:
        keys_in(vault, token, name).current()
    assert vault.token not in str(raised.value)


def test_vault_that_is_not_there_is_unavailable() -> None:
    keys = open_master_keys("vault:http://127.0.0.1:9/v1/s/data/n", {"VAULT_TOKEN": "t"})
    with pytest.raises(KeysUnavailable, match="does not answer"):
        keys.current()


def test_vault_without_a_token_is_said_before_it_is_asked(vault: FakeVault, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="VAULT_TOKEN"):
        open_master_keys(vault.source(), {"HOME": str(tmp_path)})
    (tmp_path / ".vault-token").write_text(vault.token + "\n")
    assert open_master_keys(vault.source(), {"HOME": str(tmp_path)}).current().id == id_of(NEW)


@pytest.mark.parametrize(
    "source", [NEW, "vault:http://vault:8200/v1/s/data/n", "vault:https://v/n", "env:", "file:"]
)
def test_a_setting_that_is_no_source_is_refused_and_not_shown(source: str) -> None:
    with pytest.raises(ConfigError, match="says where the key is") as error:
        CacheConfig(encryption_key=source)
    assert NEW not in str(error.value)
