"""What metrics tell of each replica, and of where calls were sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from novacron.records.output import EngineStats

_Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True, kw_only=True)
class ReplicaSnapshot:
    """What is known of one replica at the moment of a scrape."""

    name: str
    state: str
    epoch: int
    stats: EngineStats
    queued_tokens: int = 0
    num_routed: Mapping[str, int] = field(default_factory=dict)
    expected_reuse_tokens: int = 0
    found_reuse_tokens: int = 0


def replica_values(
    replicas: Sequence[ReplicaSnapshot], states: Sequence[str]
) -> dict[str, list[_Sample]]:
    """Samples by the names of the table in metrics.py."""
    return {
        "novacron_replica_state": [
            ((one.name, state), float(state == one.state)) for one in replicas for state in states
        ],
        "novacron_replica_starts": [((one.name,), one.epoch + 1.0) for one in replicas],
        "novacron_replica_requests": [
            ((one.name, kind), float(count))
            for one in replicas
            for kind, count in (
                ("running", one.stats.num_running),
                ("waiting", one.stats.num_waiting),
            )
        ],
        "novacron_replica_queued_tokens": [((one.name,), one.queued_tokens) for one in replicas],
        "novacron_replica_kv_usage": [
            ((one.name,), one.stats.num_used_blocks / max(1, one.stats.num_blocks))
            for one in replicas
        ],
        "novacron_replica_generation_tokens": [
            ((one.name,), one.stats.generation_tokens) for one in replicas
        ],
        "novacron_routing_decisions": [
            ((one.name, why), float(count))
            for one in replicas
            for why, count in sorted(one.num_routed.items())
        ],
        "novacron_routing_reused_tokens": [
            ((one.name, kind), float(count))
            for one in replicas
            for kind, count in (
                ("expected", one.expected_reuse_tokens),
                ("found", one.found_reuse_tokens),
            )
        ],
    }
