"""What metrics tell of shares: by named priority, never by tenant, of whom there are any number."""

from __future__ import annotations

from novacron.records.share_stats import CLASSES, ShareStats

_Sample = tuple[tuple[str, ...], float]


def share_values(shares: ShareStats) -> dict[str, list[_Sample]]:
    """Samples by the names of the table in metrics.py."""
    named = list(zip(CLASSES, shares.classes, strict=True))
    return {
        "novacron_served_tokens": [
            ((name, kind), float(count))
            for name, one in named
            for kind, count in (
                ("prompt", one.prompt_tokens),
                ("cached", one.cached_tokens),
                ("generation", one.generation_tokens),
            )
        ],
        "novacron_preempted_requests": [((name,), float(one.num_preempted)) for name, one in named],
        "novacron_shed_requests": [((name,), float(one.num_shed)) for name, one in named],
        "novacron_tenants": [((), float(shares.num_tenants))],
    }
