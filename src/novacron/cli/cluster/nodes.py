"""novacron cluster up, join and down: a Ray cluster that places engines on its hosts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
import psutil

from novacron.cli.cluster.ray_node import (
    PORT,
    make_token,
    run_node,
    running_nodes,
    start_arguments,
    token_file,
)
from novacron.errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., Any])

_END_PATIENCE_S = 30.0
_FEWEST_BYTES = 100 * 2**20  # which Ray insists on having for objects


def _node_options(function: Function) -> Function:
    for option in (
        click.option(
            "--host",
            default="127.0.0.1",
            show_default=True,
            help="Address of this host, by which the others reach it.",
        ),
        click.option(
            "--engines",
            type=click.IntRange(0),
            default=1,
            show_default=True,
            help="Replicas that may run here; 0 for a host that is only to coordinate.",
        ),
        click.option("--num-cpus", type=click.IntRange(0), help="CPUs that Ray may share out."),
    ):
        function = option(function)
    return function


@click.command()
@_node_options
@click.option("--port", default=PORT, show_default=True, help="Port that the others join at.")
def up(host: str, engines: int, num_cpus: int | None, port: int) -> None:
    """Begin a cluster on this host, and stay its head until Ctrl-C or `novacron cluster down`.

    Then, on this host: novacron serve MODEL --executor ray -dp 2
    """
    make_token()
    click.echo(
        f"Copy {token_file()} to the same place on the other hosts, and join them:\n"
        f"  novacron cluster join {host}:{port} --host THEIR_ADDRESS"
    )
    arguments = ["--head", f"--port={port}", "--include-dashboard=false"]
    sys.exit(run_node([*arguments, *_arguments(host, engines, num_cpus)], comes_back=False))


@click.command()
@click.argument("address")
@_node_options
def join(address: str, host: str, engines: int, num_cpus: int | None) -> None:
    """Let the cluster whose head is at ADDRESS (HOST:PORT) run engines on this host, until Ctrl-C
    or `novacron cluster down`. After the network was cut it joins again by itself."""
    if not token_file().exists():
        raise ConfigError(
            f"There is no {token_file()}: copy it from the host that runs novacron cluster up."
        )
    arguments = [f"--address={address}", *_arguments(host, engines, num_cpus)]
    sys.exit(run_node(arguments, comes_back=True))


@click.command()
def down() -> None:
    """End what `novacron cluster up` and `join` run on this host for this user."""
    nodes = running_nodes()
    for node in nodes:
        node.terminate()
    _, alive = psutil.wait_procs(nodes, timeout=_END_PATIENCE_S)
    click.echo(f"{len(nodes) - len(alive)} of {len(nodes)} nodes of this host have ended")
    sys.exit(1 if alive else 0)


def _arguments(host: str, engines: int, num_cpus: int | None) -> list[str]:
    cpus = [] if num_cpus is None else [f"--num-cpus={num_cpus}"]
    return [*start_arguments(host, engines, _FEWEST_BYTES), *cpus]
