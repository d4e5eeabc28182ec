"""novacron audit verify."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import click
import msgspec

from novacron.audit.verification import Report
from novacron.audit.verification import verify as verify_log
from novacron.cli.audit.place import on_audit_log
from novacron.errors import ConfigError

_HASH: Final = re.compile(r"\b[0-9a-f]{64}\b")


@click.command()
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="HASH",
    help="A head of before: it must still be in the log; repeatable.",
)
@click.option(
    "--heads",
    "heads_file",
    metavar="FILE",
    help="A file with such, from --save-heads.",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--save-heads",
    metavar="FILE",
    help="Write the heads to FILE, if the log is whole.",
    type=click.Path(dir_okay=False, path_type=Path),
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_audit_log
def verify(
    folder: Path,
    heads: tuple[str, ...],
    heads_file: Path | None,
    save_heads: Path | None,
    *,
    as_json: bool,
) -> None:
    """Check every byte of the log. Exit code 1, and the first broken place of each lane, if it is
    not what was written.

    Whoever may write all of the folder can write another log, or cut off its end, heads included.
    Keep heads elsewhere, and give them to a later check, to find that, too.
    """  # fmt: skip
    known = [*heads, *_HASH.findall(heads_file.read_text() if heads_file else "")]
    for head in known:
        if not _HASH.fullmatch(head):
            raise ConfigError(f"--head '{head}' is no hash. Give 64 hexadecimal digits.")
    report = verify_log(folder, known)
    click.echo(_as_json(report) if as_json else _as_text(report))
    if not report.is_whole:
        sys.exit(1)
    if save_heads is not None:
        save_heads.write_text("".join(f"{head.hash}\n" for head in report.heads.values()))


def _as_json(report: Report) -> str:
    found = {"whole": report.is_whole, **msgspec.to_builtins(report, str_keys=True)}
    return msgspec.json.format(msgspec.json.encode(found)).decode()


def _as_text(report: Report) -> str:
    told = [
        f"{report.num_records} records in {len(report.heads)} whole lanes, {report.num_purged} "
        f"purged, {report.num_lost} lost while the disk could not be written, "
        f"{report.num_torn_bytes} bytes torn by crashes and closed off."
    ]
    told += [f"Lane {lane} ends at {head.seq}: {head.hash}" for lane, head in report.heads.items()]
    told += [f"Broken: {broken}" for broken in report.breaks]
    told.append("The log is whole." if report.is_whole else "The log is NOT what was written.")
    return "\n".join(told)
