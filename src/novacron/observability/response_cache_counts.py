"""What the response cache has come to. Apart, so that metrics and cache know each other only by it.

Events: hit, semantic_hit, miss, bypass, stored, not_stored (not whole, or too long), error (of the
store).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class ResponseCacheCounts:
    """`num_saved_tokens` were generated before, and not again."""

    events: Counter[str] = field(default_factory=Counter)
    num_saved_tokens: int = 0
