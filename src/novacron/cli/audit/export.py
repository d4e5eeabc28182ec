"""novacron audit export."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Final

import click
import msgspec

from novacron.audit.reading import Entry, Wanted, oldest_first
from novacron.audit.record import AuditRecord
from novacron.cli.audit.place import Moment, on_audit_log

_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS: Final = tuple(name for name in AuditRecord.__struct_fields__ if name != "nonce")


@click.command()
@click.option("--since", type=Moment(), default=0.0, help="From then on: 2026-11-22T06:00.")
@click.option("--until", type=Moment(), help="Before then.")
@click.option("--tenant", default="", help="Only its records.")
@click.option("--kind", default="", help="Only such: admin, inference, refused ...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "csv"]),
    default="json",
    show_default=True,
    help="json: a line for each record.",
)
@on_audit_log
def export(
    folder: Path, since: float, until: float | None, tenant: str, kind: str, form: str
) -> None:
    """Write records to standard output, oldest first. It checks no chain."""  # fmt: skip
    entries = oldest_first(folder, Wanted(since=since, until=until, tenant=tenant, kind=kind))
    if form == "json":
        for entry in entries:
            click.echo(msgspec.json.encode(_row(entry)))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("lane", "seq", *_COLUMNS))
    for entry in entries:
        writer.writerow(_harmless(value) for value in _row(entry, whole=True).values())


def _row(entry: Entry, *, whole: bool = False) -> dict[str, object]:
    """`whole`: with what is empty, too."""
    values = {name: getattr(entry.record, name) for name in _COLUMNS}
    return {
        "lane": entry.lane,
        "seq": entry.seq,
        **{name: value for name, value in values.items() if value or whole},
    }


def _harmless(value: object) -> object:
    """Not a formula that a spreadsheet would run."""
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULAS) else value
