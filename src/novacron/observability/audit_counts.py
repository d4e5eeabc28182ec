"""What has become of audit records. Apart, so that metrics and log know each other only by it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from novacron.observability.definition import Values, counter, single

DEFINITIONS = (
    counter("novacron_audit_records", "Records written to the audit log.", "kind"),
    counter("novacron_audit_lost_records", "Records that could not be written, for good."),
    counter("novacron_audit_errors", "Times that writing the audit log failed."),
)


@dataclass
class AuditCounts:
    """`num_lost` could not be written; `num_errors`: times that writing failed."""

    written: Counter[str] = field(default_factory=Counter)  # by kind
    num_lost: int = 0
    num_errors: int = 0


def audit_values(counts: AuditCounts | None) -> Values:
    if counts is None:
        return {}
    return {
        "novacron_audit_records": [
            ((kind,), float(n)) for kind, n in counts.written.copy().items()
        ],
        "novacron_audit_lost_records": single(counts.num_lost),
        "novacron_audit_errors": single(counts.num_errors),
    }
