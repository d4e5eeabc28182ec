"""Which database a command is about."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from novacron.accounts.database.store import Store
from novacron.cli.admin.recording import recorded
from novacron.cli.options import load_settings
from novacron.config.folders import database_url


def on_accounts(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command options that name the database, and the Store in it as first argument. It
    leaves records in the audit log."""

    @wraps(function)
    def run(
        *,
        database: str | None,
        state_dir: str | None,
        audit_log: str | None,
        config_file: Path | None,
        **options: object,
    ) -> None:
        flags = {"database": database, "state_dir": state_dir, "audit_log": audit_log}
        server = load_settings(flags, file=config_file).server
        with recorded(server, click.get_current_context()):
            store = Store(database_url(server))
            try:
                function(store, **options)
            finally:
                store.close()

    for option in (
        click.option("--config", "config_file", metavar="FILE", help="The server's YAML file.",
                     type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.option("--state-dir", metavar="DIR", help="As the server's setting."),
        click.option("--audit-log", metavar="DIR", help="As the server's setting."),
        click.option("--database", metavar="URL", help="As the server's setting."),
    ):  # fmt: skip
        run = option(run)
    return run
