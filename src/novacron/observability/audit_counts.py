"""What has become of audit records. Apart, so that metrics and log know each other only by it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class AuditCounts:
    """`num_lost` could not be written; `num_errors`: times that writing failed."""

    written: Counter[str] = field(default_factory=Counter)  # by kind
    num_lost: int = 0
    num_errors: int = 0
