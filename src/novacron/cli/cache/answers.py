"""novacron cache answers: the response cache of a running server."""

from __future__ import annotations

from urllib.parse import urlencode

import click

from novacron.cli.cache.place import client_of
from novacron.cli.wording import size

_PATH = "/api/v1/llm/response-cache"


@click.command()
@click.option("--flush", is_flag=True, help="Drop kept answers: one's own.")
@click.option("--all-tenants", is_flag=True, help="With --flush: everyone's.")
@click.option("--dry-run", is_flag=True, help="With --flush: say what would go, and leave it.")
@click.option("--url", help="Server to talk to. [default: http://127.0.0.1:8080]")
@click.option("--api-key", "client_key", help="Its key. [default: NOVACRON_API_KEY]")
def answers(
    flush: bool, all_tenants: bool, dry_run: bool, url: str | None, client_key: str | None
) -> None:
    """Tell how often kept answers were found, or drop them."""
    if not flush:
        if all_tenants or dry_run:
            raise click.UsageError("--all-tenants and --dry-run are for --flush.")
        with client_of(url, client_key) as client:
            told = client.get(_PATH)
        if told["store"] is None:
            click.echo("The server keeps no answers (--response-cache).")
            return
        kept = "?" if told["entries"] is None else f"{told['entries']:,}"
        click.echo(f"{kept} answers in {told['store']}, {size(told['bytes'] or 0)}.")
        for name in ("hits", "semantic_hits", "misses", "bypassed", "saved_tokens", "store_errors"):
            click.echo(f"{name.replace('_', ' ')}: {told[name]:,}")
        return
    wanted = {"all_tenants": str(all_tenants).lower(), "dry_run": str(dry_run).lower()}
    with client_of(url, client_key) as client:
        gone = client.delete(f"{_PATH}?{urlencode(wanted)}")
    word = "would be dropped" if dry_run else "dropped"
    click.echo(f"{gone['entries']:,} answers, {size(gone['bytes'])}, {word}.")
