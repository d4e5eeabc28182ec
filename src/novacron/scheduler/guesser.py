"""Guesser: what speculation keeps of one request, for as long as the request lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from novacron.scheduler.acceptance import Acceptance


class Drafter(Protocol):
    """Guesses for one request."""

    def draft(self, token_ids: Sequence[int], max_drafts: int) -> tuple[int, ...]:
        """At most so many tokens that may follow `token_ids`, the request's tokens so far."""
        ...


@dataclass(eq=False, slots=True)
class Guesser:
    """Where a request's guesses come from, and how good the latest were."""

    drafter: Drafter
    acceptance: Acceptance = field(default_factory=Acceptance)
