"""novacron cache trace: made-up traffic, for the simulator."""

from __future__ import annotations

from pathlib import Path

import click

from novacron.cache_simulator.trace import write_trace
from novacron.cache_simulator.workloads import WORKLOADS, WorkloadConfig, make_workload


@click.command()
@click.option(
    "--workload", type=click.Choice(list(WORKLOADS)), default="mixed", show_default=True,
    help="chat, rag, agent, mixed (these and batches), scan (chat with batches), or loop.",
)  # fmt: skip
@click.option("--num-requests", default=20_000, show_default=True, help="Requests.")
@click.option("--load", default=1.0, show_default=True, help="2: twice as many in the same time.")
@click.option("--block-tokens", default=256, show_default=True, help="Tokens of a block.")
@click.option("--seed", default=0, show_default=True, help="The same seed, the same trace.")
@click.option(
    "--output", required=True, type=click.Path(dir_okay=False, path_type=Path),
    help="File to write, a line for each request.",
)  # fmt: skip
def trace(
    workload: str, num_requests: int, load: float, block_tokens: int, seed: int, output: Path
) -> None:
    """Write a trace of made-up requests. There is no text in it, only which blocks are alike."""
    config = WorkloadConfig(
        num_requests=num_requests, block_tokens=block_tokens, seed=seed, load=load
    )
    made = make_workload(workload, config)
    write_trace(made, output)
    hours = (made.requests[-1].arrival_s - made.requests[0].arrival_s) / 3600
    click.echo(
        f"wrote {output}: {len(made.requests)} requests in {hours:.1f} hours, "
        f"{made.num_blocks} different blocks of {block_tokens} tokens"
    )
