"""Records as a table for people, or as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec

_TIMES: Final = ("start",)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def show(records: Sequence[Any], columns: Sequence[str], *, as_json: bool) -> None:
    """`columns` are those of the table; JSON has all."""
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(records)).decode())
        return
    if not records:
        click.echo("None.")
        return
    rows = [[_cell(column, getattr(record, column)) for column in columns] for record in records]
    titles = [column.removesuffix("_at").replace("_", " ") for column in columns]
    widths = [max(len(row[i]) for row in (titles, *rows)) for i in range(len(columns))]
    for row in (titles, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _cell(column: str, value: object) -> str:
    if value is None or value == "" or value == ():
        return "-"
    if column.endswith("_at") or column in _TIMES:
        assert isinstance(value, int)
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "".join(char if char.isprintable() else "?" for char in str(value))
