"""novacron cluster status: the replicas of a server, and who coordinates, at this moment."""

from __future__ import annotations

import json

import click

from novacron.cli.api_client import Json
from novacron.cli.cache.ls import table
from novacron.cli.cluster.server import STATUS, client_of, server_options

_TITLES = (
    "REPLICA", "STATE", "EPOCH", "HOST", "PID", "RUNNING", "WAITING", "QUEUED TOKENS", "KV", "HITS",
)  # fmt: skip
_COORDINATOR_TITLES = ("COORDINATOR", "NAME", "ADDRESS", "STATE", "DUTIES", "VERSION")
_NODE_TITLES = ("NODE", "ADDRESS", "STATE", "PLACES")
_RANK_TITLES = ("RANK", "HOST", "STAGE", "STEPS", "COMPUTED", "WAITED", "SENT")
_SHORT_ID = 8


@click.command()
@server_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def status(url: str, client_key: str | None, *, as_json: bool) -> None:
    """List the replicas of the server at URL: state, how often each was started anew, and load.

    Where it has a database, the coordinators that share it, too: who lives (* is the one that
    answers), and who has which duty, with the epoch of its lease.
    """
    with client_of(url, client_key) as client:
        answer = client.get(STATUS)
    click.echo(json.dumps(answer, indent=1) if as_json else status_text(answer))


def status_text(answer: Json) -> str:
    cluster, replicas = answer["cluster"], answer["replicas"]
    num_ready = sum(one["state"] == "ready" for one in replicas)
    head = (
        f"{cluster['status']}: {num_ready} of {len(replicas)} replicas are ready, "
        f"{cluster['num_restarts']} restarts"
    )
    text = f"{head}\n{table(_TITLES, [_row(one) for one in replicas])}"
    spread = [one for one in replicas if any(rank["host"] for rank in one.get("ranks") or ())]
    if spread:
        rows = [_rank_row(one["replica_id"], rank) for one in spread for rank in one["ranks"]]
        text += f"\n\n{table(_RANK_TITLES, rows)}"
    nodes = answer.get("nodes") or ()
    if nodes:
        text += f"\n\n{table(_NODE_TITLES, [_node_row(one) for one in nodes])}"
    coordinators = answer.get("coordinators") or ()
    if coordinators:
        rows = [_coordinator_row(one, answer["duties"]) for one in coordinators]
        text += f"\n\n{table(_COORDINATOR_TITLES, rows)}"
    return text


def _node_row(one: Json) -> tuple[str, ...]:
    return one["name"], one["address"], "alive" if one["alive"] else "gone", f"{one['places']:g}"


def _rank_row(replica: str, one: Json) -> tuple[str, ...]:
    return (
        f"{replica} rank {one['rank']}",
        one["host"] or "-",
        str(one["stage"]),
        f"{one['steps']:,}",
        f"{max(0.0, one['step_s'] - one['waited_s']):,.1f} s",
        f"{one['waited_s']:,.1f} s",
        f"{one['sent_bytes'] / 2**20:,.1f} MiB",
    )


def _row(one: Json) -> tuple[str, ...]:
    return (
        one["replica_id"],
        one["state"],
        str(one["epoch"]),
        one["host"] or "-",
        str(one["pid"] or "-"),
        str(one["num_running"]),
        str(one["num_waiting"]),
        f"{one['queued_tokens']:,}",
        f"{one['kv_usage']:.0%}",
        share(one["hit_rate"]),
    )


def _coordinator_row(one: Json, duties: list[Json]) -> tuple[str, ...]:
    held = [
        f"{duty['duty']} ({duty['epoch']})"
        for duty in duties
        if duty["holder"] == one["coordinator_id"]
    ]
    return (
        one["coordinator_id"][:_SHORT_ID] + (" *" if one["is_this"] else ""),
        one["name"],
        one["address"],
        "alive" if one["is_alive"] else "ended",
        ", ".join(held) or "-",
        one["version"],
    )


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
