"""Metrics of ranks, links and canaries, in the text that Prometheus reads."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from novacron.observability.metrics import Metrics
from novacron.observability.prometheus import prometheus_text
from novacron.observability.replica_values import ReplicaSnapshot
from novacron.observability.snapshots import EngineSnapshot
from novacron.records.output import CanaryStats, EngineStats
from novacron.records.parallel_stats import LinkStats, RankLinkStats, RankStats


def values(*stats: EngineStats) -> dict[tuple[Any, ...], float]:
    engine = EngineSnapshot(
        state="ready", states=("ready",), stats=EngineStats(), spec=None, num_restarts=0,
        variants=(),
        replicas=tuple(
            ReplicaSnapshot(name=f"replica-{n}", state="ready", epoch=0, stats=one)
            for n, one in enumerate(stats)
        ),
    )  # fmt: skip
    text = prometheus_text(Metrics(), engine, "m").decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {
        (one.name, *(one.labels[name] for name in sorted(one.labels) if name != "model_name")): (
            one.value
        )
        for one in samples
    }


def test_ranks_links_and_canaries_are_told_by_replica() -> None:
    found = values(
        EngineStats(
            ranks=(
                RankStats(
                    rank=0, num_steps=9, num_meetings=400, sent_bytes=77, waited_s=0.5, step_s=0.7
                ),
                RankStats(rank=1, stage=1, num_steps=8),
            ),
            rank_links=(
                RankLinkStats(
                    rank=0, peer=1, link=LinkStats(round_trip_s=0.02, num_sent=6, sent_bytes=60)
                ),
            ),
            lost_ranks=(1,),
            canary=CanaryStats(num_passed=5, num_wrong=1, is_failing=True, last_took_s=0.2),
        ),
        EngineStats(link=LinkStats(round_trip_s=0.01, num_sent=3, received_bytes=4, num_lost=2)),
    )
    of_rank = ("0", "replica-0", "0")
    assert found["novacron_rank_steps_total", *of_rank] == 9
    assert found["novacron_rank_meetings_total", *of_rank] == 400
    assert found["novacron_rank_sent_bytes_total", *of_rank] == 77
    assert found["novacron_rank_waited_seconds_total", *of_rank] == 0.5
    assert found["novacron_rank_step_seconds_total", *of_rank] == 0.7
    between = ("1", "0", "replica-0")  # labels by their names: peer, rank, replica
    assert found["novacron_rank_link_round_trip_seconds", *between] == 0.02
    assert found["novacron_rank_link_messages_total", *between, "sent"] == 6
    assert found["novacron_rank_link_bytes_total", *between, "sent"] == 60
    assert found["novacron_rank_link_resent_segments_total", *between] == 0
    assert found["novacron_rank_up", *of_rank] == 1
    assert found["novacron_rank_up", "1", "replica-0", "1"] == 0
    assert found["novacron_canary_results_total", "replica-0", "passed"] == 5
    assert found["novacron_canary_results_total", "replica-0", "wrong"] == 1
    assert found["novacron_canary_failing", "replica-0"] == 1
    assert found["novacron_link_round_trip_seconds", "replica-1"] == 0.01
    assert found["novacron_link_messages_total", "replica-1", "sent"] == 3
    assert found["novacron_link_bytes_total", "replica-1", "received"] == 4
    assert found["novacron_link_losses_total", "replica-1"] == 2


def test_where_there_are_none_nothing_is_told() -> None:
    names = {name for name, *_ in values(EngineStats())}
    assert not any(name.startswith(("novacron_rank_", "novacron_link_")) for name in names)
    assert "novacron_canary_failing" not in names
