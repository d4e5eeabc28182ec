"""novacron admin usage."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from novacron.accounts.database.store import Store
from novacron.accounts.usage import GROUPS, Group, UsageQuestion, as_csv, groups_of
from novacron.cli.admin.output import show
from novacron.cli.admin.place import on_accounts

_SUMS = ("requests", "prompt_tokens", "cached_tokens", "output_tokens", "expired_tokens", "cost")


def _groups(ctx: click.Context, option: click.Parameter, value: str) -> tuple[Group, ...]:
    try:
        return groups_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, option) from error


def _time(ctx: click.Context, option: click.Parameter, value: datetime | None) -> int | None:
    return None if value is None else int(value.replace(tzinfo=UTC).timestamp())


_day = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"])


@click.command()
@click.option("--by", default="tenant", callback=_groups, metavar="LIST", show_default=True,
              help=f"Sum by these: {', '.join(GROUPS)}.")  # fmt: skip
@click.option("--since", type=_day, callback=_time, help="From this day or hour (UTC) on.")
@click.option("--until", type=_day, callback=_time, help="Before this day or hour (UTC).")
@click.option("--tenant", default="", help="Only this one.")
@click.option("--user", default="", help="Only this one.")
@click.option("--key", default="", help="Only this one.")
@click.option("--model", default="", help="Only this one.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table")
@on_accounts
def usage(store: Store, by: tuple[Group, ...], since: int | None, form: str, **only: Any) -> None:
    """Show what was used, and what it cost. Hours are those in which calls began."""
    question = UsageQuestion(by=by, since=since or 0, **only)
    rows = store.usage(question)
    if form == "csv":
        click.echo(as_csv(by, rows), nl=False)
    elif form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(rows)).decode())
    else:
        names = tuple("start" if group in ("hour", "day") else group for group in by)
        show(rows, (*names, *_SUMS), as_json=False)
