"""Commands in the audit log: nothing is done that the log of this machine has not got.

They know no caller of the server's, so the user is the login that runs them, as `os:NAME`: ids of
users have no colon.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from novacron.audit.lane_writer import LaneWriter
from novacron.audit.record import AuditRecord
from novacron.config.folders import audit_folder
from novacron.config.server import ServerConfig
from novacron.errors import ConfigError

_LONGEST_TARGET: Final = 200


@contextmanager
def recorded(server: ServerConfig, context: click.Context) -> Iterator[None]:
    """Around what the command does: a record on the disk before (`begun`), and one with its end.
    Raises ConfigError where there should be a log and it cannot be written."""
    folder = audit_folder(server)
    if folder is None:
        yield
        return
    with _writing(folder) as writer:
        _write(writer, _record(context, "begun"))
        outcome, target = "failed", ""
        try:
            yield
            outcome, target = "ok", _target(context)
        finally:
            with suppress(OSError):  # it is done, and the log has its beginning
                _write(writer, _record(context, outcome, target))


@contextmanager
def _writing(folder: Path) -> Iterator[LaneWriter]:
    try:
        writer = LaneWriter(folder)
    except OSError as error:
        raise ConfigError(
            f"The audit log in {folder} cannot be written: {error}. Call this as the server's user "
            "or as root, name another folder with --audit-log, or keep none: --audit-log off."
        ) from error
    try:
        yield writer
    finally:
        writer.close()


def _write(writer: LaneWriter, record: AuditRecord) -> None:
    writer.append((record,))
    writer.sync()


def _record(context: click.Context, outcome: str, target: str = "") -> AuditRecord:
    return AuditRecord(
        time=round(time.time(), 3),
        kind="admin",
        user=f"os:{_login()}",
        method="COMMAND",
        route=_path(context),
        target=target,
        outcome=outcome,
    )


def _path(context: click.Context) -> str:
    """`novacron admin ...`, however Python was called to run it."""
    if context.parent is None:
        return "novacron"
    return f"{_path(context.parent)} {context.info_name}"


def _target(context: click.Context) -> str:
    """What the command was about, as for requests only once it is known to exist."""
    names = [one.name for one in context.command.params if isinstance(one, click.Argument)]
    values = [context.params[name] for name in names if name]
    told = (" ".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in values)
    return " ".join(told)[:_LONGEST_TARGET]


def _login() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
