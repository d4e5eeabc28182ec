"""What is too old goes, of each tenant by its own policy, and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from novacron.accounts.database.store import Store
from novacron.accounts.posting import Reserve, Settle, Usage
from novacron.accounts.quota import Account
from novacron.accounts.usage import UsageQuestion
from novacron.accounts.wish import Wish
from novacron.audit.lane_writer import LaneWriter
from novacron.audit.purge import purge as purge_audit
from novacron.audit.reading import Wanted, oldest_first
from novacron.audit.record import AuditRecord
from novacron.audit.verification import verify
from novacron.config.tenants import parse_policies
from novacron.gateway.retention import Retention
from novacron.response_cache.identity import Key
from novacron.response_cache.memory_store import MemoryStore
from novacron.response_cache.sqlite_store import SqliteStore

NOW_S = 1_800_000_000.0


def test_each_kind_of_each_tenant_has_its_own_age() -> None:
    asked: list[tuple[str, str, float]] = []

    def purger(kind: str):
        def purge(tenant: str, before_s: float) -> int:
            asked.append((kind, tenant, NOW_S - before_s))
            return 1

        return purge

    policies = parse_policies(
        (
            {"name": "acme", "retain": {"audit": "2h", "prompts": "1h"}},
            {"name": "quiet"},
            {"name": "*", "retain": {"usage": "3h", "responses": "1s"}},
        )
    )
    purgers = {kind: purger(kind) for kind in ("audit", "prompts", "usage")}
    retention = Retention(policies, purgers, lambda: ("acme", "other"), rest_s=0)
    done = retention.purge(NOW_S)
    assert sorted(asked) == [
        ("audit", "acme", 7200.0),
        ("prompts", "acme", 3600.0),
        ("usage", "default", 10800.0),
        ("usage", "other", 10800.0),
    ]
    assert len(done) == 4


def test_what_fails_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(tenant: str, before_s: float) -> int:
        raise OSError("disk")

    policies = parse_policies(({"name": "a", "retain": {"audit": "1h", "usage": "1h"}},))
    retention = Retention(policies, {"audit": broken, "usage": lambda *_: 2}, rest_s=0)
    assert retention.purge(NOW_S) == {("a", "usage"): 2}
    assert "cannot be purged now" in caplog.text


def test_old_records_leave_the_audit_log_of_a_server_that_runs(tmp_path: Path) -> None:
    for time_s in (NOW_S - 7200, NOW_S - 60):  # a process each
        writer = LaneWriter(tmp_path)
        writer.append([AuditRecord(time=time_s, kind="inference", tenant=t) for t in ("a", "b")])
        writer.sync()
        if time_s < NOW_S - 60:
            writer.close()
    policies = parse_policies(({"name": "a", "retain": {"audit": "1h"}},))
    purgers = {"audit": lambda tenant, before: purge_audit(tmp_path, tenant, before).num_purged}
    assert Retention(policies, purgers, rest_s=0).purge(NOW_S) == {("a", "audit"): 1}
    left = [one.record for one in oldest_first(tmp_path, Wanted(kind="inference"))]
    assert sorted((one.tenant, one.time) for one in left) == [
        ("a", NOW_S - 60), ("b", NOW_S - 7200), ("b", NOW_S - 60),
    ]  # fmt: skip
    writer.close()
    assert verify(tmp_path).is_whole


def test_usage_goes_by_whole_hours_and_limits_stay(store: Store) -> None:
    book = store.book()
    wish = Wish(prompts=(3,), answers=(4,), model="m", model_len=99)
    account = Account("default")
    book.post([Reserve("1", account, wish)])
    book.post([Settle("1", account, Usage(prompt_tokens=3, cached_tokens=0, output_tokens=4))])
    this_hour = time.time() // 3600 * 3600
    assert store.purge_usage("default", this_hour + 3599) == 0
    assert store.purge_usage("other", this_hour + 7200) == 0
    assert store.purge_usage("default", this_hour + 7200) == 1
    assert store.usage(UsageQuestion()) == []
    assert store.verify() == []


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_answers_that_have_ended_go_unasked(kind: str, tmp_path: Path) -> None:
    now = [100.0]
    store = (
        MemoryStore(1 << 20, lambda: now[0])
        if kind == "memory"
        else SqliteStore(tmp_path / "answers.db", 1 << 20, lambda: now[0])
    )
    await store.put(Key("t", "a"), b"short", 5.0)
    await store.put(Key("t", "b"), b"long", 50.0)
    now[0] += 10
    assert await store.purge() == 1
    assert await store.get(Key("t", "b")) == b"long"
    assert (await store.amount()).entries == 1
    await store.close()
