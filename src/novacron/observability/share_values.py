"""What metrics tell of shares: by named priority, never by tenant, of whom there are any number."""

from __future__ import annotations

from novacron.observability.definition import Values, counter, gauge, single
from novacron.records.share_stats import CLASSES, ShareStats

DEFINITIONS = (
    counter(
        "novacron_served_tokens",
        "Tokens of prompts computed or cached, and generated, by named priority.",
        "priority",
        "kind",
    ),
    counter("novacron_preempted_requests", "Requests put back, by named priority.", "priority"),
    counter(
        "novacron_shed_requests",
        "Requests sent away from a full queue for others, by named priority.",
        "priority",
    ),
    gauge(
        "novacron_tenants",
        "Tenants that share the engine, or did within half a minute, with fair shares.",
    ),
)


def share_values(shares: ShareStats) -> Values:
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
        "novacron_tenants": single(shares.num_tenants),
    }
