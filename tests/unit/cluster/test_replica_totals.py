from __future__ import annotations

import pytest

from novacron.cluster.replica_totals import ReplicaTotals, sum_with_watches
from novacron.records.output import EngineStats, SessionStats, TierStats, WatchStats

RAM = TierStats(kind="ram", capacity_bytes=100, used_bytes=50, num_blocks=5, num_stored=9)


def test_totals_go_on_over_a_restart_and_what_is_held_does_not() -> None:
    totals = ReplicaTotals()
    old = EngineStats(
        num_blocks=10,
        num_running=3,
        generation_tokens=1000,
        kv_tiers=(RAM,),
        sessions=SessionStats(num_sessions=4, num_turns=7),
    ).after_the_end()
    assert totals.with_earlier(old).generation_tokens == 1000
    totals.end(old)
    totals.end(old)  # dead, then loading
    assert totals.with_earlier(old).generation_tokens == 1000
    totals.begin()
    new = EngineStats(num_blocks=10, generation_tokens=5, kv_tiers=(RAM,))
    both = totals.with_earlier(new)
    assert (both.generation_tokens, both.num_blocks, both.num_running) == (1005, 10, 0)
    [tier] = both.kv_tiers
    assert (tier.capacity_bytes, tier.used_bytes, tier.num_stored) == (100, 50, 18)
    assert (both.sessions.num_sessions, both.sessions.num_turns) == (0, 7)


def test_watches_of_replicas_are_of_one_thing() -> None:
    watches = (
        WatchStats(num_scored=10, quality=0.9, num_alerts=1, is_alarmed=True),
        WatchStats(num_scored=30, quality=1.0, seconds=2.0),
        WatchStats(),
    )
    watch = sum_with_watches([EngineStats(watch=one) for one in watches]).watch
    assert watch is not None
    assert watch.quality == pytest.approx(0.975)
    assert (watch.num_scored, watch.num_alerts, watch.seconds) == (40, 1, 2.0)
    assert watch.is_alarmed
    assert watch.kl is None
