"""What the response cache has come to. Apart, so that metrics and cache know each other only by it.

Events: hit, semantic_hit, miss, bypass, stored, not_stored (not whole, or too long), error (of the
store).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from novacron.observability.definition import Values, counter, single

DEFINITIONS = (
    counter(
        "novacron_response_cache_events",
        "Calls by what the response cache was to them: hit, semantic_hit, miss, bypass; answers by "
        "whether they were kept: stored, not_stored; error: the store failed.",
        "event",
    ),
    counter("novacron_response_cache_saved_tokens", "Tokens of hits: not generated again."),
)


@dataclass
class ResponseCacheCounts:
    """`num_saved_tokens` were generated before, and not again."""

    events: Counter[str] = field(default_factory=Counter)
    num_saved_tokens: int = 0


def response_cache_values(counts: ResponseCacheCounts | None) -> Values:
    if counts is None:
        return {}
    return {
        "novacron_response_cache_events": [
            ((event,), float(number)) for event, number in sorted(counts.events.items())
        ],
        "novacron_response_cache_saved_tokens": single(counts.num_saved_tokens),
    }
