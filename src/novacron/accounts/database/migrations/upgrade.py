"""Runs the migrations. Imported only when there is one to run."""

from __future__ import annotations

import logging

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from novacron.accounts.database.schema import newer_version, version_of


def upgrade(connection: Connection, shown: str) -> None:
    """Within the transaction of `connection`. Raises ConfigError for tables newer than this."""
    config = Config()
    config.set_main_option("script_location", "novacron.accounts.database:migrations")
    config.attributes["connection"] = connection
    version = version_of(connection)
    if version is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(version)
        except CommandError as error:
            raise newer_version(version, shown) from error
    logging.getLogger("alembic").setLevel(logging.WARNING)
    command.upgrade(config, "head")
