"""novacron cache stat: how full the cache is, and what it was good for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import click

from novacron.cli.api_client import Json
from novacron.cli.cache.ls import table
from novacron.cli.cache.place import BASE, client_of, folder_of, folder_options, server_options
from novacron.cli.wording import counted, size
from novacron.kv_tiers.disk_folder import models_in

_DONE = {"load": "loaded", "store": "stored"}


@click.command()
@folder_options
@server_options
@click.option("--window", default=600.0, show_default=True, help="With --url: seconds to look at.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def stat(
    kv_disk_path: str | None,
    cache_dir: str | None,
    config_file: Path | None,
    url: str | None,
    client_key: str | None,
    window: float,
    as_json: bool,
) -> None:
    """Sum up the folder of blocks; with --url, a server's cache: hit rates by level, loads, and
    what holds it back."""
    if url is not None:
        with client_of(url, client_key) as client:
            status = client.get(f"{BASE}/status")
            report = client.get(f"{BASE}/report?{urlencode({'window': window})}")
        both = {"status": status, "report": report}
        click.echo(json.dumps(both, indent=1) if as_json else server_text(status, report))
        return
    folder = folder_of(kv_disk_path, cache_dir, config_file)
    models = models_in(folder)
    segments = [one for model in models for one in model.segments]
    totals = {
        "folder": str(folder),
        "num_models": len(models),
        "num_files": len(segments),
        "num_blocks": sum(model.num_blocks for model in models),
        "pinned_blocks": sum(one.num_pinned for one in segments),
        "num_bytes": sum(model.file_bytes for model in models),
        "unknown_files": sum(one.shape is None for one in segments),
    }
    if as_json:
        click.echo(json.dumps(totals, indent=1))
        return
    text = size(sum(model.file_bytes for model in models))
    click.echo(f"{folder}: {text} in {counted(len(segments), 'file')}")
    click.echo(
        f"{totals['num_blocks']:,} blocks of {counted(len(models), 'model')}, "
        f"{totals['pinned_blocks']} of them pinned"
    )
    if unknown := sum(one.shape is None for one in segments):
        click.echo(f"{counted(unknown, 'file')} of another format, first to go for room")


def server_text(status: Json, report: Json) -> str:
    device = status["device"]
    held = device["used_blocks"] + device["cached_blocks"]
    hits = _rate(device["hit_rate"] if status["overall_hit_rate"] is not None else None)
    rows = [("device", f"{held} of {device['num_blocks']} blocks", hits, "", "", "", "")]
    rows += [
        (
            tier["kind"],
            f"{size(tier['used_bytes'])} of {size(tier['capacity_bytes'])}",
            _rate(tier["hit_rate"]),
            f"{tier['loaded']} loaded, {tier['stored']} stored",
            *(_latency(tier["latencies"][operation]) for operation in ("lookup", "load", "store")),
        )
        for tier in status["tiers"]
    ]
    sessions, metrics = status["sessions"], report["metrics"]
    lines = [
        table(("LEVEL", "USED", "HITS", "BLOCKS", "LOOKUP", "LOAD", "STORE"), rows),
        "Times: half of all calls took at most the first, 99 of 100 the second. "
        f"Looking a prefix up in the index: {_latency(status['loads']['lookup']) or '-'}.",
        f"Reused prompt tokens since the start: {_rate(status['overall_hit_rate'])}; "
        f"in the last {metrics['seconds']:.0f} s: {_rate(metrics['hit_rate'])}"
        f"{_trend(report['trends']['hit_rate'])}.",
        f"Sessions: {sessions['known']} known, {sessions['returns']} returns"
        + (
            f", {_rate(sessions['hit_rate'])} of their prompts cached."
            if sessions["returns"]
            else "."
        ),
        f"Pinned: {status['pinned_blocks']} blocks.",
        *_fetched_ahead(status["prefetch"]),
        *(line for tier in status["tiers"] for line in _troubles(tier)),
    ]
    for finding in report["bottlenecks"]:
        lines.append(f"{finding['kind']}: {finding['evidence']} {finding['advice']}")
    return "\n".join(lines)


def _fetched_ahead(told: Json | None) -> Iterator[str]:
    if told is not None:
        used = f", {_rate(told['effectiveness'])} of them used" if told["fetched"] else ""
        yield f"Fetched ahead: {told['fetched']:,} blocks{used}."


def _trend(told: str) -> str:
    return "" if told == "unknown" else f", {told}"


def _troubles(tier: Json) -> Iterator[str]:
    """Why a tier does less than it could, if it does."""
    if tier["actions"]:
        medium = "The disk" if tier["kind"] == "disk" else "The machine's memory"
        yield f"{medium} runs out ({tier['pressure']}): {', '.join(tier['actions'])}."
    for work in ("load", "store"):
        if tier[f"{work}_breaker"] != "closed":
            yield f"{tier['kind']}: nothing is {_DONE[work]} for a while, after errors (see log)."


def _latency(told: Json) -> str:
    if not told["calls"]:
        return ""
    return f"{_milliseconds(told['p50_seconds'])}, {_milliseconds(told['p99_seconds'])} ms"


def _milliseconds(seconds: float) -> str:
    told = 1000 * seconds
    return f"{told:,.0f}" if told >= 10 else f"{told:.2g}"


def _rate(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
