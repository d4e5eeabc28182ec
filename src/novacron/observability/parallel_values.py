"""What metrics tell of each replica's ranks, of the link to its host, and of its canary."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.observability.replica_values import ReplicaSnapshot

_Sample = tuple[tuple[str, ...], float]


def parallel_values(replicas: Sequence[ReplicaSnapshot]) -> dict[str, list[_Sample]]:
    """Samples by the names of the table in metrics.py; none of what there is not."""
    return {**_rank_values(replicas), **_link_values(replicas), **_canary_values(replicas)}


def _rank_values(replicas: Sequence[ReplicaSnapshot]) -> dict[str, list[_Sample]]:
    ranks = [
        ((one.name, str(rank.rank), str(rank.stage)), rank)
        for one in replicas
        for rank in one.stats.ranks
    ]
    return {
        "novacron_rank_up": [
            ((one.name, str(rank.rank), str(rank.stage)), float(rank.rank not in lost))
            for one in replicas
            for lost in (one.stats.lost_ranks,)
            for rank in one.stats.ranks
        ],
        "novacron_rank_steps": [(name, rank.num_steps) for name, rank in ranks],
        "novacron_rank_meetings": [(name, rank.num_meetings) for name, rank in ranks],
        "novacron_rank_sent_bytes": [(name, rank.sent_bytes) for name, rank in ranks],
        "novacron_rank_waited_seconds": [(name, rank.waited_s) for name, rank in ranks],
    }


def _link_values(replicas: Sequence[ReplicaSnapshot]) -> dict[str, list[_Sample]]:
    links = [((one.name,), one.stats.link) for one in replicas if one.stats.link is not None]
    return {
        "novacron_link_round_trip_seconds": [
            (name, link.round_trip_s) for name, link in links if link.round_trip_s is not None
        ],
        "novacron_link_messages": [
            ((*name, way), number)
            for name, link in links
            for way, number in (("sent", link.num_sent), ("received", link.num_received))
        ],
        "novacron_link_bytes": [
            ((*name, way), number)
            for name, link in links
            for way, number in (("sent", link.sent_bytes), ("received", link.received_bytes))
        ],
        "novacron_link_resent_segments": [(name, link.num_resent) for name, link in links],
        "novacron_link_dropped_messages": [(name, link.num_dropped) for name, link in links],
        "novacron_link_losses": [(name, link.num_lost) for name, link in links],
    }


def _canary_values(replicas: Sequence[ReplicaSnapshot]) -> dict[str, list[_Sample]]:
    tried = [(one.name, one.stats.canary) for one in replicas if one.stats.canary is not None]
    return {
        "novacron_canary_results": [
            ((name, result), number)
            for name, canary in tried
            for result, number in (
                ("passed", canary.num_passed),
                ("wrong", canary.num_wrong),
                ("missing", canary.num_missing),
            )
        ],
        "novacron_canary_failing": [((name,), float(canary.is_failing)) for name, canary in tried],
        "novacron_canary_seconds": [
            ((name,), canary.last_took_s) for name, canary in tried if canary.num_passed
        ],
    }
