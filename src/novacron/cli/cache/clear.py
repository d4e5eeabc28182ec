"""novacron cache clear: drop blocks, on disk or in a running server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import click

from novacron.cli.cache.place import BASE, client_of, folder_of, folder_options, server_options
from novacron.cli.wording import size
from novacron.config.quantities import parse_duration_s
from novacron.gateway.identity.configured_keys import tenant_of
from novacron.kv_tiers.disk_folder import FoundModel, FoundSegment, models_in, remove
from novacron.kv_tiers.pin_file import PinFile


@click.command()
@folder_options
@server_options
@click.option("--all", "everything", is_flag=True, help="Of all models.")
@click.option("--model", "models", multiple=True, help="Of this model, as `ls` names it.")
@click.option("--older-than", metavar="DURATION", help="Not used for so long: 7d, 12h.")
@click.option("--level", "levels", multiple=True, help="With --url: device, ram or disk only.")
@click.option("--tenant", help="With --url: only blocks of the tenant with this id.")
@click.option("--tenant-key", help="The same of the tenant that this key of `api_key` is.")
@click.option("--unpin", is_flag=True, help="Pinned blocks, too.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and leave it.")
def clear(
    kv_disk_path: str | None,
    cache_dir: str | None,
    config_file: Path | None,
    url: str | None,
    client_key: str | None,
    everything: bool,
    models: tuple[str, ...],
    older_than: str | None,
    levels: tuple[str, ...],
    tenant: str | None,
    tenant_key: str | None,
    unpin: bool,
    dry_run: bool,
) -> None:
    """Drop cached blocks; nothing is lost but time. On disk whole files go: those of --all, or of
    --model, or that were not used for --older-than. Files that hold pinned blocks stay, unless
    --unpin is given, and so does one that a server is filling."""
    if tenant_key is not None:
        tenant = tenant_of(tenant_key)
    if url is not None:
        if models or older_than or everything:
            raise click.UsageError(
                "--all, --model and --older-than are for the disk, not for --url."
            )
        _clear_server(url, client_key, levels, tenant, unpin=unpin, dry_run=dry_run)
        return
    if levels:
        raise click.UsageError("--level needs --url: on disk there is one level.")
    if tenant is not None:
        raise click.UsageError("--tenant needs --url: a file has blocks of several tenants.")
    if not (everything or models or older_than):
        raise click.UsageError("Say what shall go: --all, --model NAME or --older-than DURATION.")
    folder = folder_of(kv_disk_path, cache_dir, config_file)
    found = models_in(folder)
    wanted = chosen(found, models, older_than, time.time())
    kept = [] if unpin else [one for one in wanted if one.num_pinned]
    going = [one for one in wanted if one not in kept]
    gone = [one for one in going if not one.is_being_filled] if dry_run else remove(folder, going)
    if unpin and not dry_run:
        _forget_pins(folder, found, gone)
    num_bytes = sum(one.file_bytes for one in gone)
    num_blocks = sum(len(one.keys) for one in gone)
    word = "would be removed" if dry_run else "removed"
    click.echo(f"{len(gone)} files with {num_blocks} blocks, {size(num_bytes)}, {word}.")
    if len(gone) < len(going):
        click.echo(f"{len(going) - len(gone)} are being filled by a server: use --url for it.")
    if kept:
        click.echo(f"{len(kept)} hold pinned blocks and stay; --unpin takes them, too.")


def chosen(
    found: Sequence[FoundModel], names: Sequence[str], older_than: str | None, now_s: float
) -> list[FoundSegment]:
    """Segments of these models (none: of all) not used for so long. Raises UsageError for a name
    that is not there."""
    unknown = set(names) - {model.name for model in found}
    if unknown:
        there = ", ".join(sorted({model.name for model in found})) or "none"
        raise click.UsageError(f"There are no blocks of {min(unknown)!r}. There are: {there}.")
    until_s = now_s if older_than is None else now_s - parse_duration_s(older_than)
    return [
        one
        for model in found
        for one in model.segments
        if (not names or model.name in names) and (older_than is None or one.used_s <= until_s)
    ]


def _forget_pins(folder: Path, found: Sequence[FoundModel], gone: Sequence[FoundSegment]) -> None:
    """Of models of which nothing is left, in no level."""
    left = {
        model.pins_identity for model in found if any(one not in gone for one in model.segments)
    }
    for identity in {model.pins_identity for model in found} - left:
        if identity is not None:
            PinFile(folder, identity).write(())


def _clear_server(
    url: str,
    client_key: str | None,
    levels: tuple[str, ...],
    tenant: str | None,
    *,
    unpin: bool,
    dry_run: bool,
) -> None:
    wanted = [("level", level) for level in levels]
    if tenant is not None:
        wanted.append(("tenant", tenant))
    wanted += [("unpin", str(unpin).lower()), ("dry_run", str(dry_run).lower())]
    with client_of(url, client_key) as client:
        cleared = client.delete(f"{BASE}?{urlencode(wanted)}")
    word = "would be dropped" if dry_run else "dropped"
    blocks = ", ".join(f"{level} {count}" for level, count in cleared["blocks"].items())
    click.echo(f"Blocks {word}: {blocks}.")
