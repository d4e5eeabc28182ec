"""novacron config: what settings are in effect, and why."""

from __future__ import annotations

from pathlib import Path

import click

from novacron.cli.options import ALL_COMPONENTS, config_file_option, load_settings, settings_command
from novacron.config.explain import explain as rows_of
from novacron.config.explain import render_json, render_table


@click.group()
def config() -> None:
    """Explain the settings in effect."""


@settings_command(*ALL_COMPONENTS)
@click.argument("model_path", metavar="[MODEL]", required=False)
@config_file_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def explain(
    model_path: str | None, config_file: Path | None, as_json: bool, **flags: object
) -> None:
    """Show every setting: its value, where that comes from, and what it means.

    Takes the same MODEL, options, file and environment as `novacron serve`.
    """
    settings = load_settings(flags, file=config_file, model=model_path)
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}", err=True)
    rows = rows_of(settings)
    click.echo(render_json(rows) if as_json else render_table(rows))


config.add_command(explain)
