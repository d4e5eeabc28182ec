"""novacron cache tune: settings of the tiers that suit a trace better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from novacron.cache_simulator.compression import FIGURES, Level
from novacron.cache_simulator.tuner import Limits, Settings, Tuned
from novacron.cache_simulator.tuner import tune as search
from novacron.cli.cache_options import SIZE, costs_of, read, trace_options
from novacron.config.quantities import format_bytes
from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.choice import POLICY_NAMES, PolicyConfig, PolicyName


@click.command()
@trace_options
@click.option("--ram", type=SIZE, default="4Gi", show_default=True, help="Most bytes of RAM.")
@click.option("--disk", type=SIZE, default="20Gi", show_default=True, help="Most bytes on disk.")
@click.option("--current-ram", type=SIZE, help="RAM tier in effect. [default: --ram]")
@click.option("--current-disk", type=SIZE, help="Disk tier in effect. [default: --disk]")
@click.option(
    "--current-policy", type=click.Choice(POLICY_NAMES), default="learned", show_default=True,
    help="Policy in effect.",
)  # fmt: skip
@click.option(
    "--levels",
    default="raw",
    show_default=True,
    help="Levels of compression that your model bears: raw,int8. See novacron bench kv-codecs.",
)
@click.option("--budget", default=24, show_default=True, help="Candidates to start with.")
@click.option("--margin", default=0.02, show_default=True, help="Least gain worth a change.")
@click.option("--target", default=1.0, show_default=True, help="Hit rate to stop at.")
@click.option("--seed", default=0, show_default=True, help="The same seed, the same proposal.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="YAML to write.")
def tune(
    *,
    trace_file: Path,
    limit: int | None,
    bytes_per_token: int,
    prefill_tokens_per_s: float,
    ram: int,
    disk: int,
    current_ram: int | None,
    current_disk: int | None,
    current_policy: PolicyName,
    levels: str,
    budget: int,
    margin: float,
    target: float,
    seed: int,
    output: Path | None,
) -> None:
    """Search settings that would have served a trace better, by replaying it.

    Changes nothing: it prints a proposal for novacron serve --config, if one is ahead of the
    settings in effect by the margin.
    """
    current = Settings(
        ram_bytes=ram if current_ram is None else current_ram,
        disk_bytes=disk if current_disk is None else current_disk,
        policy=PolicyConfig(name=current_policy),
    )
    limits = Limits(
        ram_bytes=ram,
        disk_bytes=disk,
        levels=_levels(levels),
        margin=margin,
        target_hit_rate=target,
    )
    found = search(
        read(trace_file, limit),
        current,
        limits,
        costs=costs_of(bytes_per_token, prefill_tokens_per_s),
        budget=budget,
        seed=seed,
    )
    click.echo(_summary(found))
    if found.proposed is None:
        click.echo(f"Nothing is ahead of the current settings by {margin:.0%}: keep them.")
        return
    text = settings_file(found.proposed)
    click.echo(f"\n{text}", nl=False)
    if output is not None:
        output.write_text(text)
        click.echo(f"wrote {output}: novacron serve --config {output}")


def settings_file(settings: Settings) -> str:
    """For novacron serve --config."""
    ram: dict[str, Any] = {"kind": "ram", "size": format_bytes(settings.ram_bytes)}
    ram["policy"] = settings.policy.name
    if settings.policy.name == "cost":
        ram["weights"] = str(settings.policy.cost.weights)
    if settings.policy.name == "ttl":
        ram["ttl"] = settings.policy.ttl_s
    disk = {"kind": "disk", "size": format_bytes(settings.disk_bytes)}
    for tier, level in ((ram, settings.ram_level), (disk, settings.disk_level)):
        if level != "raw":
            tier["compression"] = level
    sizes = ((ram, settings.ram_bytes), (disk, settings.disk_bytes))
    told: dict[str, Any] = {"kv_tiers": [tier for tier, taken in sizes if taken]}
    if settings.prefetch_bytes:
        told["kv_prefetch"] = "adaptive"
    return yaml.safe_dump(told, sort_keys=False)


def _levels(text: str) -> tuple[Level, ...]:
    """Raises ConfigError."""
    known: dict[str, Level] = {level: level for level in FIGURES}
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or not set(names) <= known.keys():
        raise ConfigError(f"--levels is '{text}': give some of {', '.join(known)}.")
    return tuple(dict.fromkeys(known[name] for name in names))


def _with(settings: Settings) -> str:
    """What stands beside sizes."""
    parts: list[str] = [settings.policy.name]
    if settings.policy.name == "ttl":
        parts.append(f"{settings.policy.ttl_s:.0f} s")
    if settings.prefetch_bytes:
        parts.append("prefetch")
    return " ".join(parts)


def _summary(found: Tuned) -> str:
    parts = (
        ("now", found.current, found.current_outcome),
        ("best", found.best, found.best_outcome),
    )
    lines = [
        f"{name}: {outcome.hit_rate:.1%} of prompt tokens found, {1000 * outcome.saved_s:.0f} ms "
        f"saved a request (ram {format_bytes(settings.ram_bytes)} {settings.ram_level}, "
        f"disk {format_bytes(settings.disk_bytes)} {settings.disk_level}, {_with(settings)})"
        for name, settings, outcome in parts
    ]
    ending = ", ended early at the target" if found.ended_early else ""
    lines.append(f"gain: {1000 * found.gain:.0f} ms a request; {found.num_replays} replays{ending}")
    return "\n".join(lines)
