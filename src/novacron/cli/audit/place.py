"""Which audit log a command is about, and times as people write them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from novacron.cli.options import load_settings
from novacron.config.folders import audit_folder
from novacron.errors import ConfigError


def on_audit_log(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command FOLDER and options that name it, and the folder as first argument."""

    @wraps(function)
    def run(
        *,
        folder: Path | None,
        audit_log: str | None,
        state_dir: str | None,
        config_file: Path | None,
        **options: object,
    ) -> None:
        flags = {"audit_log": audit_log, "state_dir": state_dir}
        found = folder or audit_folder(load_settings(flags, file=config_file).server)
        if found is None or not found.is_dir():
            raise ConfigError(
                f"There is no audit log in {found}. Name its folder, or --state-dir or --audit-log "
                "as the server has them."
            )
        try:
            function(found, **options)
        except OSError as error:
            raise ConfigError(f"The audit log in {found} cannot be used: {error}.") from error

    for option in (
        click.option("--config", "config_file", metavar="FILE", help="The server's YAML file.",
                     type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option("--state-dir", metavar="DIR", help="As the server's setting."),
        click.option("--audit-log", metavar="DIR", help="As the server's setting."),
        click.argument("folder", required=False, type=click.Path(path_type=Path)),
    ):  # fmt: skip
        run = option(run)
    return run


class Moment(click.ParamType[float]):
    """Unix seconds, from 2026-11-22, 2026-11-22T06:00 (UTC, if no zone is given) or a number."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return float(value)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"'{value}' is no time such as 2026-11-22 or 2026-11-22T06:00.", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
