"""novacron cache ls: what is cached, by model; or what a server keeps pinned."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click

from novacron.cli.api_client import Json
from novacron.cli.cache.place import BASE, client_of, folder_of, folder_options, server_options
from novacron.cli.wording import size
from novacron.kv_tiers.disk_folder import FoundModel, models_in
from novacron.kv_tiers.model_label import ModelLabel


@click.command()
@folder_options
@server_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def ls(
    kv_disk_path: str | None,
    cache_dir: str | None,
    config_file: Path | None,
    url: str | None,
    client_key: str | None,
    as_json: bool,
) -> None:
    """List the models whose KV blocks lie on disk; with --url, the pinned prefixes of a server."""
    if url is not None:
        with client_of(url, client_key) as client:
            pins = client.get(f"{BASE}/pins")
        click.echo(json.dumps(pins, indent=1) if as_json else pin_table(pins))
        return
    folder = folder_of(kv_disk_path, cache_dir, config_file)
    models = models_in(folder)
    if as_json:
        click.echo(json.dumps([as_record(model) for model in models], indent=1))
        return
    if not models:
        click.echo(f"No KV blocks lie in {folder}.")
        return
    click.echo(model_table(models, time.time()))


def model_table(models: list[FoundModel], now_s: float) -> str:
    rows = [
        (
            model.name,
            "-" if model.label is None else _precision_of(model.label),
            "all" if model.label is None else model.label.part or "all",
            str(model.num_blocks),
            str(len(model.segments)),
            size(model.file_bytes),
            f"{_age(now_s - model.used_s)} ago",
            str(model.num_pins or ""),
        )
        for model in models
    ]
    return table(("MODEL", "KV", "PART", "BLOCKS", "FILES", "SIZE", "USED", "PINS"), rows)


def _precision_of(label: ModelLabel) -> str:
    """Of the device's blocks, and in what the files keep them."""
    precision = label.kv_identity.partition(" ")[0]
    precision = precision if label.level == "raw" else f"{precision}:{label.level}"
    return f"{precision} encrypted" if label.is_encrypted else precision


def pin_table(pins: Json) -> str:
    rows = [
        (
            pin["name"],
            "public" if pin["public"] else "own",
            str(pin["num_tokens"]),
            size(pin["num_bytes"]),
            ", ".join(f"{kind} {count}" for kind, count in pin["stored_blocks"].items()),
            "-" if pin["expires_at"] is None else time.strftime(
                "%Y-%m-%d %H:%M", time.localtime(pin["expires_at"])
            ),
        )
        for pin in pins["pins"]
    ]  # fmt: skip
    bound = f"{pins['pinned_blocks']:,} blocks are pinned; {pins['most_blocks']:,} may be."
    if not rows:
        return f"You have no pins. {bound}"
    return table(("PIN", "FOR", "TOKENS", "SIZE", "STORED", "UNTIL"), rows) + f"\n{bound}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (titles, *rows)
    )


def as_record(model: FoundModel) -> dict[str, object]:
    return {
        "model": model.name,
        "model_version": None if model.label is None else model.label.model_version,
        "kv_identity": None if model.label is None else model.label.kv_identity,
        "part": None if model.label is None else model.label.part,
        "level": None if model.label is None else model.label.level,
        "encrypted": model.is_encrypted,
        "identity": None if model.identity is None else model.identity.hex(),
        "num_blocks": model.num_blocks,
        "num_files": len(model.segments),
        "num_bytes": model.file_bytes,
        "used_at": model.used_s,
        "num_pins": model.num_pins,
        "files": [
            {
                "path": str(one.path),
                "num_bytes": one.file_bytes,
                "num_blocks": len(one.keys),
                "pinned_blocks": one.num_pinned,
                "is_being_filled": one.is_being_filled,
            }
            for one in model.segments
        ],
    }


def _age(seconds: float) -> str:
    for limit, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= limit:
            return f"{seconds / limit:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
