"""novacron bench ledger: does the ledger equal what engines have computed, whoever is killed?

Two coordinators with a process each share a database and send thousands of requests at once, of
tenants whose day has too few tokens for all of them. They are killed at random moments and started
again; clients send what has no answer again. At the end, when the leases of the dead are over, the
ledger is compared with the engines' journals, call by call. Then one coordinator alone at a steady
rate shows what a reservation takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from novacron.accounts.database import audit
from novacron.accounts.database.entry_rows import EXPIRED, SETTLED, VOID
from novacron.accounts.database.store import Store
from novacron.accounts.quota import Quota
from novacron.bench import engine_journal
from novacron.bench.ledger_crowd import Crowd, LedgerScenario
from novacron.bench.ledger_job import CROWDED, QUIET, LedgerJobReport
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, milliseconds, row
from novacron.bench.target import TargetOptions
from novacron.config.url_secrets import mask_url
from novacron.errors import ConfigError, DatabaseUnavailable

_COLUMNS: Final = (
    Column("reserve", "p50"), Column("reserve", "p95"), Column("reserve", "p99"),
    Column("requests", "mean"), Column("cpu", "mean"), Column("ahead", "mean"),
)  # fmt: skip


@dataclass
class _Accounts:
    """Ledger and journals side by side, in tokens."""

    limit: int
    computed: int = 0
    counted: int = 0
    differing: int = 0  # settled calls
    over_reserved: int = 0  # calls that computed more than they had reserved
    unknown: int = 0  # calls that computed without being in the ledger
    held: int = 0  # tokens of killed calls that count though nobody computed them
    states: dict[str, int] = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)


async def run(
    options: TargetOptions, scenario: LedgerScenario, progress: Callable[[str], None]
) -> BenchResult:
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        url = scenario.database or f"sqlite:///{folder}/ledger.db"
        shown = "SQLite" if url.startswith("sqlite") else mask_url(url)
        told = replace(scenario, database=mask_url(scenario.database))
        measurement = Measurement("ledger", told, {"database": shown})
        store = Store(url)
        try:
            quota = _quota(store, scenario)
            crowd = Crowd(scenario, url, folder, progress)
            sweeping = asyncio.create_task(_sweep_for_ever(store, scenario))
            reports = await crowd.run()
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
            progress("waiting for the leases of the killed")
            await _expire(store, scenario)
            found = _compare(store, folder, quota)
            crowded = (
                f"{scenario.arrivals:g} a second for each" if scenario.arrivals else "all at once"
            )
            rows = [_row(f"{crowded}, with kills", reports)]
            if scenario.seconds:
                progress(f"{scenario.rate:g} requests a second")
                rows.append(_row(f"{scenario.rate:g} a second", [await crowd.run_paced()]))
        finally:
            store.close()
    return measurement.finish(
        rows=rows, columns=_COLUMNS, goals=_goals(found), facts=_facts(found, crowd)
    )


def _quota(store: Store, scenario: LedgerScenario) -> int:
    """Tokens of the tenant's day: too few for all."""
    try:
        for tenant in (CROWDED, QUIET):
            store.tenants.create(tenant)
    except Exception as error:
        raise ConfigError("The database is not empty: give one that is.") from error
    mean_tokens = scenario.most_tokens * 0.79  # prompts a half of it, answers half of 7/12
    limit = int(scenario.num_requests * mean_tokens * scenario.share)
    store.quotas.set(
        "tenant",
        CROWDED,
        Quota(tokens_per_day=limit, concurrent_requests=scenario.most_at_once),
    )
    enough = Quota(tokens_per_day=10**12, concurrent_requests=scenario.most_at_once * 100)
    store.quotas.set("tenant", QUIET, enough)
    return limit


async def _sweep_for_ever(store: Store, scenario: LedgerScenario) -> None:
    """What one of the coordinators does for all while they live; places of the killed get free."""
    book = store.book()
    while True:
        await asyncio.sleep(scenario.lease_seconds / 2)
        with contextlib.suppress(DatabaseUnavailable):  # busy: the next time, then
            await asyncio.to_thread(book.sweep)


async def _expire(store: Store, scenario: LedgerScenario) -> None:
    """As any coordinator does while it lives."""
    book = store.book()
    await asyncio.sleep(1.1 * scenario.lease_seconds)
    while book.sweep():
        pass


def _compare(store: Store, folder: Path, limit: int) -> _Accounts:
    computed: defaultdict[str, int] = defaultdict(int)
    for file in folder.glob("coordinator-*.journal"):
        for what, id, tokens in engine_journal.read(file):
            if what == "computed":
                computed[id] += tokens
    found = _Accounts(limit, computed=sum(computed.values()))
    found.disagreements = audit.differences(store.database)
    for entry in audit.entries(store.database):
        tokens = computed.pop(entry.id, 0)
        found.counted += entry.counted_tokens
        found.states[entry.state] = found.states.get(entry.state, 0) + 1
        found.differing += entry.state in (SETTLED, VOID) and tokens != entry.used_tokens
        found.over_reserved += tokens > entry.reserved_tokens
        if entry.state == EXPIRED:
            found.held += entry.reserved_tokens - tokens
    found.unknown = len(computed)
    return found


def _goals(found: _Accounts) -> list[Goal]:
    overspent = max(0, found.computed - found.limit, found.counted - found.limit)
    zeros = {
        "tokens computed or counted beyond the quota": (overspent, "tokens"),
        "settled calls whose ledger is not the engine's count": (found.differing, "calls"),
        "calls that computed more than they had reserved": (found.over_reserved, "calls"),
        "calls that computed without being in the ledger": (found.unknown, "calls"),
        "balances that are not the sum of their entries": (len(found.disagreements), ""),
    }
    return [
        Goal(name=name, limit=0, better="lower", value=value, unit=unit)
        for name, (value, unit) in zeros.items()
    ]


def _facts(found: _Accounts, crowd: Crowd) -> dict[str, object]:
    return {
        "quota, tokens": found.limit,
        "computed by engines, tokens": found.computed,
        "counted by the ledger, tokens": found.counted,
        "of these reserved by killed calls and not computed": found.held,
        "entries by state": found.states,
        "coordinators killed": crowd.num_killed,
        "requests sent, those sent again included": crowd.num_sent,
    }


def _row(part: str, reports: Sequence[LedgerJobReport]) -> Row:
    reserve_s = [sample for report in reports for sample in report.reserve_s]
    rates = [len(report.reserve_s) / report.seconds for report in reports if report.reserve_s]
    ahead = [
        report.num_from_ahead / len(report.reserve_s) for report in reports if report.reserve_s
    ]
    cpu_ms = [1000 * report.cpu_s / len(report.reserve_s) for report in reports if report.reserve_s]
    return row(
        {"part": part},
        reserve=milliseconds(reserve_s or [0.0]),
        requests=metric("1/s", "higher", rates or [0.0]),
        cpu=metric("ms of processor time a request", "lower", cpu_ms or [0.0]),
        ahead=metric("reserved ahead, of 1", "neither", ahead or [0.0]),
    )
