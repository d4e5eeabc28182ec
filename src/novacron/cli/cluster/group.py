"""novacron cluster: commands about the replicas of a running server, and the hosts they are on."""

from __future__ import annotations

from collections.abc import Mapping

import click

from novacron.cli.lazy_group import Entry, LazyGroup

_COMMANDS: Mapping[str, Entry] = {
    "up": Entry("novacron.cli.cluster.nodes:up", "Begin a cluster of hosts, with Ray."),
    "join": Entry("novacron.cli.cluster.nodes:join", "Add this host to it."),
    "down": Entry("novacron.cli.cluster.nodes:down", "Take this host out of it."),
    "key": Entry("novacron.cli.cluster.key:key", "Show this host's public key for links."),
    "status": Entry("novacron.cli.cluster.status:status", "List the replicas."),
    "top": Entry("novacron.cli.cluster.top:top", "Watch them at work."),
    "drain": Entry("novacron.cli.cluster.drain:drain", "Take a replica out of service."),
    "resume": Entry("novacron.cli.cluster.drain:resume", "Bring it back."),
    "scale": Entry("novacron.cli.cluster.drain:scale", "Change their number."),
    "restart": Entry("novacron.cli.cluster.drain:restart", "Restart replicas one after the other."),
}


class _ClusterGroup(LazyGroup):
    entries = _COMMANDS


@click.group(cls=_ClusterGroup)
def cluster() -> None:
    """See the replicas of a running server, drain and restart them; and bring hosts together.

    A server has several replicas with --data-parallel-size, or with --engine-hosts.
    """
