"""What metrics tell of each replica's ranks, of the link to its host, and of its canary."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.observability.definition import Values, counter, gauge
from novacron.observability.replica_values import ReplicaSnapshot

_OF_RANK = ("replica", "rank", "stage")
_OF_RANK_LINK = ("replica", "rank", "peer")

DEFINITIONS = (
    gauge(
        "novacron_rank_up",
        "1 for a rank that computes with the others, 0 while it is replaced.",
        *_OF_RANK,
    ),
    counter("novacron_rank_steps", "Steps that a rank has computed.", *_OF_RANK),
    counter(
        "novacron_rank_meetings",
        "Sums and concatenations of a rank with the others of its stage.",
        *_OF_RANK,
    ),
    counter(
        "novacron_rank_sent_bytes",
        "Bytes that a rank gave other ranks of its stage, and the next stage.",
        *_OF_RANK,
    ),
    counter(
        "novacron_rank_waited_seconds",
        "Time that a rank waited in a step: for others of its stage, for the stage before.",
        *_OF_RANK,
    ),
    counter(
        "novacron_rank_step_seconds",
        "Time of a rank's steps, waiting included, where it is measured.",
        *_OF_RANK,
    ),
    gauge(
        "novacron_rank_link_round_trip_seconds",
        "From a rank to one on another host and back, as TCP measures it.",
        *_OF_RANK_LINK,
    ),
    counter(
        "novacron_rank_link_messages",
        "Messages between two ranks on different hosts, by way.",
        *_OF_RANK_LINK,
        "way",
    ),
    counter(
        "novacron_rank_link_bytes", "Bytes of these, before encryption.", *_OF_RANK_LINK, "way"
    ),
    counter("novacron_rank_link_resent_segments", "TCP segments sent again.", *_OF_RANK_LINK),
    gauge(
        "novacron_link_round_trip_seconds", "To a replica's host and back, the newest.", "replica"
    ),
    counter("novacron_link_messages", "Messages over a link, by way.", "replica", "way"),
    counter("novacron_link_bytes", "Bytes of these, before encryption.", "replica", "way"),
    counter("novacron_link_resent_segments", "TCP segments sent again.", "replica"),
    counter("novacron_link_dropped_messages", "Messages of an epoch that was over.", "replica"),
    counter("novacron_link_losses", "Links that ended without being told to.", "replica"),
    counter(
        "novacron_canary_results",
        "Small requests that a replica was tried with, by result: passed, wrong, missing.",
        "replica",
        "result",
    ),
    gauge("novacron_canary_failing", "1 if the last one did not pass, else 0.", "replica"),
    gauge("novacron_canary_seconds", "What the last one that passed took.", "replica"),
)


def parallel_values(replicas: Sequence[ReplicaSnapshot]) -> Values:
    """None of what there is not."""
    return {
        **_rank_values(replicas),
        **_rank_link_values(replicas),
        **_link_values(replicas),
        **_canary_values(replicas),
    }


def _rank_values(replicas: Sequence[ReplicaSnapshot]) -> Values:
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
        "novacron_rank_step_seconds": [(name, rank.step_s) for name, rank in ranks if rank.step_s],
    }


def _rank_link_values(replicas: Sequence[ReplicaSnapshot]) -> Values:
    links = [
        ((one.name, str(link.rank), str(link.peer)), link.link)
        for one in replicas
        for link in one.stats.rank_links
    ]
    return {
        "novacron_rank_link_round_trip_seconds": [
            (name, link.round_trip_s) for name, link in links if link.round_trip_s is not None
        ],
        "novacron_rank_link_messages": [
            ((*name, way), number)
            for name, link in links
            for way, number in (("sent", link.num_sent), ("received", link.num_received))
        ],
        "novacron_rank_link_bytes": [
            ((*name, way), number)
            for name, link in links
            for way, number in (("sent", link.sent_bytes), ("received", link.received_bytes))
        ],
        "novacron_rank_link_resent_segments": [(name, link.num_resent) for name, link in links],
    }


def _link_values(replicas: Sequence[ReplicaSnapshot]) -> Values:
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


def _canary_values(replicas: Sequence[ReplicaSnapshot]) -> Values:
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
