"""novacron cache verify: compare what is on disk with its checksums."""

from __future__ import annotations

from pathlib import Path

import click

from novacron.cli.cache.place import folder_of, folder_options
from novacron.cli.main import EXIT_FAILED
from novacron.kv_tiers.disk_folder import check, drop_broken, models_in


@click.command()
@folder_options
@click.option("--drop", is_flag=True, help="Drop the blocks that do not check.")
@click.pass_context
def verify(
    ctx: click.Context,
    kv_disk_path: str | None,
    cache_dir: str | None,
    config_file: Path | None,
    drop: bool,
) -> None:
    """Read every block on disk and compare it with its checksum.

    A server does so with each block that it loads, and computes what does not check. Exit code 1:
    there are broken blocks, and they were not dropped.
    """
    num_sound = num_broken = 0
    for model in models_in(folder_of(kv_disk_path, cache_dir, config_file)):
        for checked in check(model):
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
