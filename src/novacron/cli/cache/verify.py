"""novacron cache verify: compare what is on disk with its checksums."""

from __future__ import annotations

from pathlib import Path

import click

from novacron.cli.cache.opening import opener_of
from novacron.cli.cache.place import folder_of, folder_options
from novacron.cli.main import EXIT_FAILED
from novacron.kv_tiers.disk_folder import check, drop_broken, models_in


@click.command()
@folder_options
@click.option("--encryption-key", help="As the server's setting.")
@click.option("--drop", is_flag=True, help="Drop the blocks that do not check.")
@click.pass_context
def verify(
    ctx: click.Context,
    kv_disk_path: str | None,
    cache_dir: str | None,
    config_file: Path | None,
    drop: bool,
    encryption_key: str | None,
) -> None:
    """Read every block on disk and compare it with its checksum.

    A server does so with each block that it loads, and computes what does not check. Exit code 1:
    there are broken blocks, and they were not dropped. Encrypted blocks need the server's
    encryption_key.
    """
    num_sound = num_broken = 0
    folder = folder_of(kv_disk_path, cache_dir, config_file)
    opens = opener_of(encryption_key, config_file, folder)
    for model in models_in(folder):
        if model.is_encrypted and opens is None:
            click.echo(
                f"{model.name}: {model.num_blocks} blocks are encrypted, and not checked: name the "
                "master key with --encryption-key."
            )
            continue
        for checked in check(model, opens) if opens and model.is_encrypted else check(model):
            num_sound += checked.num_sound
            num_broken += len(checked.broken)
            if checked.broken:
                click.echo(f"{checked.segment.path}: {len(checked.broken)} blocks do not check")
                if drop:
                    drop_broken(checked)
        for one in model.segments:
            if one.shape is None:
                click.echo(f"{one.path}: not a file of a format that is known here")
    click.echo(
        f"{num_sound} blocks check, {num_broken} do not" + (", and are dropped" * drop) + "."
    )
    if num_broken and not drop:
        ctx.exit(EXIT_FAILED)
