"""Two coordinators on one database, killed at random moments: the ledger stays exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.bench.ledger import run
from novacron.bench.ledger_crowd import LedgerScenario
from novacron.bench.target import TargetOptions
from novacron.testing.postgres_server import find_programs, new_database, running_postgres

pytestmark = pytest.mark.slow


async def kill_some(url: str, arrivals: float = 0.0) -> None:
    scenario = LedgerScenario(
        database=url,
        num_requests=800,
        arrivals=arrivals,
        num_kills=4,
        lease_seconds=0.5,
        seconds=0,
    )
    result = await run(TargetOptions(environment={}), scenario, lambda text: None)
    assert [goal.name for goal in result.goals if not goal.met] == []
    assert result.facts["coordinators killed"] > 0
    assert result.facts["computed by engines, tokens"] > 0


async def test_on_sqlite(tmp_path: Path) -> None:
    await kill_some(f"sqlite:///{tmp_path}/accounts.db")


async def test_with_reservations_ahead(tmp_path: Path) -> None:
    """At a steady rate there are some all the time."""
    await kill_some(f"sqlite:///{tmp_path}/accounts.db", arrivals=300.0)


async def test_on_postgresql() -> None:
    if find_programs() is None:
        pytest.skip("there is no PostgreSQL on this machine")
    with running_postgres() as server:
        await kill_some(new_database(server, "ledger"))
