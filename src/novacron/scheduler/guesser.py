"""What speculation keeps of one request, for as long as the request lives."""

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


@dataclass(eq=False, slots=True)
class DraftProgress:
    """How far the draft model has come with a request, and how good its latest guesses were.

    It has seen the first `num_seen` tokens: their KV lies in the blocks that the request holds.
    `num_drafted` counts its guesses for the step that is being computed.
    """

    num_seen: int = 0
    num_drafted: int = 0
    acceptance: Acceptance = field(default_factory=Acceptance)
