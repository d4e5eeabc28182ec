"""What a rank has counted, as others are told."""

from __future__ import annotations

from novacron.parallel.traffic import Traffic
from novacron.records.parallel_stats import RankStats


def rank_stats(rank: int, stage: int, traffic: Traffic) -> RankStats:
    return RankStats(
        rank=rank,
        stage=stage,
        num_steps=traffic.num_steps,
        num_meetings=traffic.num_meetings,
        sent_bytes=traffic.sent_bytes,
        waited_s=traffic.waited_ns / 1e9,
        step_s=traffic.step_ns / 1e9,
    )
