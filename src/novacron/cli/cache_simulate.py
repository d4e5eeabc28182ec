"""novacron cache simulate: what tiers would find of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from novacron.cache_simulator.belady import best_hit_rate
from novacron.cache_simulator.compression import FIGURES, Level
from novacron.cache_simulator.replay import Outcome, PrefetchConfig, TierConfig, replay
from novacron.cli.cache_options import SIZE, costs_of, read, trace_options
from novacron.cli.wording import size
from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.choice import POLICY_NAMES, PolicyConfig, PolicyName
from novacron.kv_tiers.eviction.cost import CostConfig
from novacron.kv_tiers.eviction.score import Weights

_SPEEDS = {"device": 1e12, "ram": 8e9, "disk": 1e9}  # bytes a second


@click.command()
@trace_options
@click.option("--device", type=SIZE, default="0", help="KV cache on the device. [default: none]")
@click.option("--ram", type=SIZE, default="4Gi", show_default=True, help="RAM tier; 0: none.")
@click.option("--disk", type=SIZE, default="0", help="Disk tier. [default: none]")
@click.option(
    "--policy", type=click.Choice(POLICY_NAMES), default="learned", show_default=True,
    help="Which blocks leave RAM and disk first. Device: used longest ago.",
)  # fmt: skip
@click.option("--ttl", default=3600.0, show_default=True, help="Seconds, for ttl.")
@click.option("--weights", default="", help="For cost: temporal=0.5,prediction=0.5.")
@click.option(
    "--ram-compression", type=click.Choice(list(FIGURES)), default="raw", show_default=True
)
@click.option(
    "--disk-compression", type=click.Choice(list(FIGURES)), default="raw", show_default=True
)
@click.option("--prefetch", is_flag=True, help="Sessions that are due come to an eighth of RAM.")
@click.option("--compare", is_flag=True, help="Every policy; with RAM alone Belady's optimum, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def simulate(
    *,
    trace_file: Path,
    limit: int | None,
    bytes_per_token: int,
    prefill_tokens_per_s: float,
    device: int,
    ram: int,
    disk: int,
    policy: PolicyName,
    ttl: float,
    weights: str,
    ram_compression: Level,
    disk_compression: Level,
    prefetch: bool,
    compare: bool,
    as_json: bool,
) -> None:
    """Replay a trace against tiers: where prompts would be found, and what that saves.

    Requests do not overlap in a replay, so hits are an upper bound. It runs the policies that the
    server has, not copies of them.
    """
    trace = read(trace_file, limit)
    costs = costs_of(bytes_per_token, prefill_tokens_per_s)
    cost = CostConfig(weights=Weights.parse(weights)) if weights else CostConfig()
    sizes = {"device": device, "ram": ram, "disk": disk}
    if not any(sizes.values()):
        raise ConfigError("There is no tier: give --device, --ram or --disk.")
    levels = {"ram": ram_compression, "disk": disk_compression}
    ahead = PrefetchConfig(buffer_bytes=ram // 8) if prefetch and ram and disk else None
    if ahead is not None:
        sizes["ram"] -= ahead.buffer_bytes
    outcomes: dict[str, Outcome] = {}
    for name in POLICY_NAMES if compare else (policy,):
        chosen = PolicyConfig(name=name, ttl_s=ttl, cost=cost)
        tiers = [
            TierConfig(
                kind=kind,
                capacity_bytes=taken,
                policy=PolicyConfig(name="lru") if kind == "device" else chosen,
                bytes_per_s=_SPEEDS[kind],
                level=levels.get(kind, "raw"),
            )
            for kind, taken in sizes.items()
            if taken > 0
        ]
        outcomes[name] = replay(trace, tiers, costs, ahead)
    best = None
    if compare and not device and not disk:
        best = best_hit_rate(trace, ram // (trace.block_tokens * bytes_per_token))
    if as_json:
        told = {"policies": outcomes, "belady_hit_rate": best}
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=1).decode())
        return
    Console().print(_table(outcomes))
    if best is not None:
        click.echo(f"Belady's optimum, which knows the future: {best:.1%} of prompt tokens")
    for tried, outcome in outcomes.items():
        if outcome.prefetch_used is not None:
            click.echo(f"{tried}: {outcome.prefetch_used:.1%} of what was fetched ahead was used")
    some = next(iter(outcomes.values()))
    click.echo(
        f"{some.num_requests} requests, {some.prompt_tokens} prompt tokens; saved: of the time to "
        "a request's first token, in the mean"
    )


def _table(outcomes: dict[str, Outcome]) -> Table:
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("policy", "tier", "hit rate", "brought", "stored", "evicted", "regrets", "saved"):
        table.add_column(
            name, justify="left" if name in ("policy", "tier") else "right", no_wrap=True
        )
    for policy, outcome in outcomes.items():
        for line in _lines(policy, outcome):
            table.add_row(*line)
    return table


def _lines(policy: str, outcome: Outcome) -> Sequence[tuple[str, ...]]:
    lines = [
        (
            policy,
            tier.kind,
            f"{tier.hit_rate:.1%}",
            size(tier.loaded_bytes),
            size(tier.stored_bytes),
            str(tier.counts.num_evicted + tier.counts.num_expired),
            str(tier.counts.num_regretted),
            f"{1000 * outcome.saved_s:.0f} ms" if len(outcome.tiers) == 1 else "",
        )
        for tier in outcome.tiers
    ]
    if len(lines) > 1:
        saved = f"{1000 * outcome.saved_s:.0f} ms"
        lines.append((policy, "all", f"{outcome.hit_rate:.1%}", "", "", "", "", saved))
    return lines
