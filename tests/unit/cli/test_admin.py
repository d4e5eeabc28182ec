"""novacron admin on a database of its own, as a script would use it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pwd
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from novacron.accounts.database.store import Store
from novacron.accounts.posting import Reserve, Settle, Usage
from novacron.accounts.quota import Account
from novacron.accounts.wish import Wish
from novacron.audit.reading import Wanted, oldest_first
from novacron.audit.verification import verify
from novacron.cli.accounts import open_accounts
from novacron.cli.main import cli
from novacron.config.server import ServerConfig
from novacron.gateway.identity.key_format import prefix_of
from novacron.gateway.identity.key_hash import is_key_of


class Admin:
    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/accounts.db"
        self.audit = folder / "audit"

    def __call__(self, *arguments: str, exit_code: int = 0) -> Result:
        place = [] if "--database" in arguments else ["--database", self.url]
        place += [] if "--audit-log" in arguments else ["--audit-log", str(self.audit)]
        result = CliRunner().invoke(cli, ["admin", *arguments, *place])
        assert result.exit_code == exit_code, result.output
        return result

    def json(self, *arguments: str) -> list[dict[str, object]]:
        return json.loads(self(*arguments, "--json").stdout)


@pytest.fixture
def admin(tmp_path: Path) -> Admin:
    admin = Admin(tmp_path)
    admin("tenant", "add", "acme", "--name", "Acme Ltd")
    admin("user", "add", "ann", "--tenant", "acme", "--role", "admin", "--role", "auditor")
    return admin


def test_policies(admin: Admin) -> None:
    admin("policy", "set", "nobody", exit_code=1)
    admin("policy", "set", "acme", "--retain", "prompts", exit_code=2)
    admin("policy", "set", "acme", "--retain", "letters=7d", exit_code=1)
    admin("policy", "set", "acme", "--record-prompts", "--retain", "prompts=7d", "--region", "eu")
    said = "acme: response_cache=exact, record_prompts, regions=eu, retain prompts=7d\n"
    assert admin("policy", "ls").stdout == said
    assert admin.json("policy", "ls")["acme"]["retain"] == {"prompts": "7d"}  # type: ignore[call-overload]
    admin("policy", "rm", "acme")
    assert admin("policy", "ls").stdout == "None.\n"


def test_people(admin: Admin) -> None:
    [user] = admin.json("user", "ls", "--tenant", "acme")
    assert (user["id"], user["roles"]) == ("ann", ["admin", "auditor"])
    admin("user", "set-roles", "ann", "user")
    admin("user", "disable", "ann")
    [user] = admin.json("user", "ls")
    assert (user["disabled"], user["roles"]) == (True, ["user"])
    admin("user", "enable", "ann")
    admin("tenant", "disable", "acme")
    assert "yes" in admin("tenant", "ls").stdout
    admin("tenant", "enable", "acme")
    admin("role", "add", "scraper", "llm:metrics:read", "llm:cluster:*")
    assert admin.json("role", "ls")[0]["permissions"] == ["llm:metrics:read", "llm:cluster:*"]
    admin("role", "rm", "scraper")
    admin("user", "rm", "ann")
    admin("tenant", "rm", "acme")
    assert admin("tenant", "ls").stdout == "None.\n"


def test_what_is_there_is_changed_in_place(admin: Admin) -> None:
    admin("role", "add", "scraper", "llm:metrics:read", "--description", "Prometheus")
    admin("role", "set", "scraper", "llm:metrics:*")
    [role] = admin.json("role", "ls")
    assert (role["permissions"], role["description"]) == (["llm:metrics:*"], "Prometheus")
    admin("tenant", "rename", "acme", "Acme and Sons")
    admin("user", "rename", "ann", "Ann Archer")
    admin("user", "set-email", "ann", "ann@example.org")
    [tenant], [user] = admin.json("tenant", "ls"), admin.json("user", "ls")
    assert (tenant["id"], tenant["name"]) == ("acme", "Acme and Sons")
    assert (user["name"], user["email"]) == ("Ann Archer", "ann@example.org")
    assert user["roles"] == ["admin", "auditor"]


def test_a_role_or_scope_that_would_allow_nothing_is_refused(admin: Admin) -> None:
    admin("role", "add", "scraper", "llm:metrics:read")
    for arguments, why in (
        (("role", "add", "admin", "llm:metrics:read"), "built in"),
        (("role", "add", "typist", "llm:metric:read"), "llm:metric:read is no permission"),
        (("role", "set", "scraper", "llm:metric:read"), "llm:metric:read is no permission"),
        (("role", "set", "nobody", "llm:metrics:read"), "no role 'nobody'"),
        (("key", "add", "--user", "ann", "--scope", "llm:chat"), "llm:chat is no permission"),
    ):
        assert why in admin(*arguments, exit_code=1).stderr


def test_each_command_stands_in_the_audit_log_with_its_end(admin: Admin) -> None:
    admin("user", "rename", "ann", "Ann")
    admin("user", "rm", "nobody", exit_code=1)
    admin("tenant", "ls")
    told = [entry.record for entry in oldest_first(admin.audit, Wanted(kind="admin"))][4:]
    assert [(one.route, one.outcome, one.target) for one in told] == [
        ("novacron admin user rename", "begun", ""),
        ("novacron admin user rename", "ok", "ann Ann"),
        ("novacron admin user rm", "begun", ""),
        ("novacron admin user rm", "failed", ""),
        ("novacron admin tenant ls", "begun", ""),
        ("novacron admin tenant ls", "ok", ""),
    ]
    assert {(one.method, one.user) for one in told} == {
        ("COMMAND", f"os:{pwd.getpwuid(os.getuid()).pw_name}")
    }
    assert verify(admin.audit).is_whole


def test_a_command_that_the_log_cannot_tell_of_does_nothing(admin: Admin, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = ("--audit-log", str(tmp_path / "file"))
    refused = admin("user", "disable", "ann", *nowhere, exit_code=2)
    assert "cannot be written" in refused.stderr
    assert admin.json("user", "ls")[0]["disabled"] is False
    admin("user", "disable", "ann", "--audit-log", "off")
    assert admin.json("user", "ls")[0]["disabled"] is True


def test_what_cannot_be_is_told_in_a_line(admin: Admin) -> None:
    assert "There is no user 'bob'" in admin("user", "rm", "bob", exit_code=1).stderr
    assert "already" in admin("tenant", "add", "acme", exit_code=1).stderr
    assert "postgresql" in admin("tenant", "ls", "--database", "x://y", exit_code=2).stderr
    admin("quota", "set", "tenant", "nobody", "--tokens-per-day", "1", exit_code=1)
    admin("price", "set", "m", "--prompt", "cheap", exit_code=2)
    admin("usage", "--by", "planet", exit_code=2)


def test_a_key_is_shown_alone_and_once(admin: Admin) -> None:
    key = admin("key", "add", "--user", "ann", "--name", "laptop", "--days", "30").stdout.strip()
    [listed] = admin.json("key", "ls")
    assert listed["prefix"] == prefix_of(key.encode())
    assert "hash" not in listed
    store = Store(admin.url)
    stored = store.keys.get(str(listed["id"]))
    store.close()
    assert is_key_of(stored.hash, key.encode())
    new = admin("key", "rotate", stored.id, "--overlap-hours", "1").stdout.strip()
    assert new != key
    admin("key", "revoke", stored.id)
    revoked = {one["id"]: one["revoked_at"] for one in admin.json("key", "ls")}
    assert revoked[stored.id] is not None
    assert len(revoked) == 2


def test_quotas_and_prices(admin: Admin) -> None:
    admin("quota", "set", "tenant", "acme", "--tokens-per-day", "1000", "--model", "m")
    assert admin("quota", "ls").stdout == "tenant:acme: tokens_per_day=1000, models=m\n"
    admin("quota", "set", "tenant", "acme")
    assert admin("quota", "ls").stdout == "None.\n"
    admin("price", "set", "m", "--prompt", "0.15", "--output", "0.6")
    assert admin("price", "ls").stdout == "m: prompt 0.15, cached 0.15, output 0.6\n"


def test_usage_and_a_backup_of_everything(admin: Admin, tmp_path: Path) -> None:
    store = Store(admin.url)
    book, account = store.book(), Account("acme", "ann")
    book.post([Reserve("1", account, Wish(prompts=(5,), answers=(5,), model="m", model_len=99))])
    book.post([Settle("1", account, Usage(prompt_tokens=5, output_tokens=3))])
    store.close()
    file = str(tmp_path / "all.backup")
    admin("backup", file)
    other = f"sqlite:///{tmp_path}/other.db"
    admin("restore", file, "--database", other)
    assert "not empty" in admin("restore", file, "--database", other, exit_code=1).stderr
    for url in (admin.url, other):
        text = admin("usage", "--by", "user,model", "--format", "csv", "--database", url).stdout
        [row] = csv.DictReader(io.StringIO(text))
        assert (row["user"], row["prompt_tokens"], row["output_tokens"]) == ("ann", "5", "3")
    assert "ann" in admin("usage", "--by", "day,user").stdout
    [row] = json.loads(admin("usage", "--format", "json", "--since", "2020-01-01").stdout)
    assert row["tenant"] == "acme"
    assert "no differences" in admin("verify").stdout


def test_a_server_opens_what_admin_has_made_and_nothing_else(tmp_path: Path) -> None:
    server = ServerConfig(state_dir=str(tmp_path))
    assert open_accounts(server) is None
    assert not list(tmp_path.iterdir())
    result = CliRunner().invoke(
        cli, ["admin", "tenant", "add", "acme", "--state-dir", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    accounts = open_accounts(server)
    assert accounts is not None
    assert [tenant.id for tenant in accounts.administration.tenants.list()] == ["acme"]
    assert asyncio.run(accounts.ledger.close(10.0))
