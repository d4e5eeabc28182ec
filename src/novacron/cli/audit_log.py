"""The audit log of a server, opened. Nothing of it is imported for servers without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from novacron.config.folders import audit_folder
from novacron.config.server import ServerConfig
from novacron.errors import ConfigError

if TYPE_CHECKING:
    from novacron.gateway.auditing.opened import OpenedAudit


def open_audit(server: ServerConfig, *, asks_who_calls: bool) -> OpenedAudit | None:
    """None where none is wanted. Raises ConfigError if it cannot be written."""
    folder = audit_folder(server, is_wanted=asks_who_calls or not server.is_loopback)
    if folder is None:
        return None

    from novacron.audit.lane_writer import LaneWriter
    from novacron.audit.log import AuditLog
    from novacron.gateway.auditing.opened import OpenedAudit

    try:
        writer = LaneWriter(folder)
    except OSError as error:
        raise ConfigError(
            f"The audit log in {folder} cannot be written: {error}. Make the folder writable, "
            "name another with audit_log, or serve without one: --audit-log off."
        ) from error
    return OpenedAudit(AuditLog(writer), folder, server.audit_inference)
