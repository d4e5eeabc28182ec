"""novacron audit: commands on the files of an audit log, whether a server runs or not."""

from __future__ import annotations

from collections.abc import Mapping

import click

from novacron.cli.lazy_group import Entry, LazyGroup

_COMMANDS: Mapping[str, Entry] = {
    "verify": Entry("novacron.cli.audit.verify:verify", "Is the log what was written?"),
    "export": Entry("novacron.cli.audit.export:export", "Records as JSON or CSV."),
    "purge": Entry("novacron.cli.audit.purge:purge", "Take out old records of a tenant."),
}


class _AuditGroup(LazyGroup):
    entries = _COMMANDS


@click.group(cls=_AuditGroup)
def audit() -> None:
    """Check, export and purge the audit log.

    It lies in audit in the state folder, unless --audit-log, NOVACRON_AUDIT_LOG or FOLDER names
    another.
    """
