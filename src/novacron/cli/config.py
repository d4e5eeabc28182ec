"""novacron config: what settings are in effect, and why."""

from __future__ import annotations

import click

from novacron.cli.options import serving_command
from novacron.config.explain import explain as rows_of
from novacron.config.explain import render_json, render_table
from novacron.config.load import Settings


@click.group()
def config() -> None:
    """Explain the settings in effect."""


@serving_command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def explain(settings: Settings, *, as_json: bool) -> None:
    """Show every setting: its value, where that comes from, and what it means.

    Takes the same MODEL, options, file and environment as `novacron serve`.
    """
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}", err=True)
    rows = rows_of(settings)
    click.echo(render_json(rows) if as_json else render_table(rows))


config.add_command(explain)
