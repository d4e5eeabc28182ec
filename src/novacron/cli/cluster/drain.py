"""novacron cluster drain, resume, restart and scale: replicas out of service and back, losing
nothing."""

from __future__ import annotations

import sys

import click

from novacron.cli.api_client import ApiClient, Json
from novacron.cli.cluster.server import SCALE, STATUS, client_of, order, server_options

EXIT_CUT_OFF = 1


_timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0),
    help="Seconds for running requests to end. [default: the server's shutdown_timeout]",
)


@click.command()
@click.argument("replica")
@server_options
@_timeout_option
@click.option("--restart", is_flag=True, help="Start it anew afterwards.")
@click.option("--force", is_flag=True, help="Also if it is the last one that is ready.")
def drain(
    replica: str,
    url: str,
    client_key: str | None,
    timeout: float | None,
    *,
    restart: bool,
    force: bool,
) -> None:
    """Send REPLICA (replica-1, say) no new work, let it finish, and end its process.

    Exit code 1 if requests were cut off, because they did not end in time.
    """
    with client_of(url, client_key) as client:
        finished = _drain(client, replica, timeout, restart=restart, force=force)
    sys.exit(0 if finished else EXIT_CUT_OFF)


@click.command()
@click.argument("replica")
@server_options
def resume(replica: str, url: str, client_key: str | None) -> None:
    """Start the process of REPLICA, which was drained or died too often."""
    with client_of(url, client_key) as client:
        answer = order(client, replica, "resume", {})
    click.echo(_is_now(answer["replica"]))


@click.command()
@click.argument("replicas", nargs=-1)
@server_options
@_timeout_option
def restart(
    replicas: tuple[str, ...], url: str, client_key: str | None, timeout: float | None
) -> None:
    """Restart REPLICAS, or all of them, one after the other: the next one only when the last is
    ready again."""
    with client_of(url, client_key) as client:
        names = replicas or [one["replica_id"] for one in client.get(STATUS)["replicas"]]
        finished = [_drain(client, name, timeout, restart=True, force=False) for name in names]
    sys.exit(0 if all(finished) else EXIT_CUT_OFF)


@click.command()
@click.argument("number", type=click.IntRange(1))
@server_options
@_timeout_option
def scale(number: int, url: str, client_key: str | None, timeout: float | None) -> None:
    """Have NUMBER replicas. New ones serve as soon as they are ready; those that go first finish
    what they run."""
    body: Json = {"replica_count": number}
    if timeout is not None:
        body["timeout"] = timeout
    with client_of(url, client_key) as client:
        answer = client.post(SCALE, body)
    for one in answer["replicas"]:
        click.echo(_is_now(one))


def _drain(
    client: ApiClient, replica: str, timeout: float | None, *, restart: bool, force: bool
) -> bool:
    body: Json = {"restart": restart, "force": force}
    if timeout is not None:
        body["timeout"] = timeout
    answer = order(client, replica, "drain", body)
    cut_off = "" if answer["finished"] else "; some of its requests were cut off"
    click.echo(f"{_is_now(answer['replica'])}{cut_off}")
    return bool(answer["finished"])


def _is_now(one: Json) -> str:
    return f"{one['replica_id']} is {one['state']} (epoch {one['epoch']})"
