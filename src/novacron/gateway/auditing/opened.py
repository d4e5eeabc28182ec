"""The audit log as the gateway gets it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from novacron.audit.log import AuditLog


@dataclass(frozen=True)
class OpenedAudit:
    """`folder` is what is read; `log` is written, with `records_inference` of calls, too."""

    log: AuditLog
    folder: Path
    records_inference: bool = True
