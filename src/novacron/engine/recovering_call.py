"""RecoveringCall: one call of a RecoveringClient, and what is known of it between its lives."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from novacron.engine.admission import with_seed
from novacron.engine.journal import Journal
from novacron.errors import EngineDead, NovaCronError
from novacron.records.output import RequestOutput
from novacron.records.request import Request

_SETTLING_S: Final = 0.02  # then all who died in the same death have said so
_LONGEST_BACKOFF_S: Final = 0.5


class RecoveringCall:
    """A call and its journal. `name` is its own; `variant`: the precision in which it goes on."""

    def __init__(self, name: str, variant: str, journal: Journal) -> None:
        self.name = name
        self.variant = variant
        self.journal = journal
        self.failure: NovaCronError | None = None  # that has ended its last life
        self.backoff_s = 0.0  # to pass before the next one
        self.is_waiting = True  # between two lives, or before the first
        self.trial_tokens: dict[str, int] | None = None  # counts, beyond the journal, in a trial
        self._silent_since_s: float | None = None
        self._to_abort: set[str] = set()
        self._aborted: list[RequestOutput] = []

    @property
    def was_accepted(self) -> bool:
        """It is not given up because an engine is busy, or not there yet."""
        return self.failure is not None

    @property
    def goes_on(self) -> bool:
        """There is something left to say."""
        return self.has_aborted or not self.journal.has_ended

    @property
    def has_aborted(self) -> bool:
        """Some of its requests have been aborted, and nobody was told yet."""
        return bool(self._aborted)

    def begin_life(self) -> tuple[Request, ...]:
        """What an engine is to be given now."""
        self.is_waiting = False
        return self.journal.remaining()

    def record(self, output: RequestOutput) -> RequestOutput:
        """The output of an engine as the caller shall see it."""
        output = self.journal.record(output)
        if self._silent_since_s is None:
            return output
        pause_s, self._silent_since_s = time.monotonic() - self._silent_since_s, None
        return msgspec.structs.replace(output, pause_s=pause_s)

    def see_death(self, error: EngineDead) -> Mapping[str, int]:
        """The tokens that its requests had by then."""
        self._see_end_of_life(error)
        self.backoff_s = _SETTLING_S
        if self._silent_since_s is None:
            self._silent_since_s = time.monotonic()
        tokens, self.trial_tokens = self.trial_tokens, None
        return self.journal.num_tokens if tokens is None else tokens

    def end_trial(self) -> None:
        """It has passed: what it got is yet to be told, and then it waits for its next life."""
        self.trial_tokens = None
        self.is_waiting = True

    def see_refusal(self, error: NovaCronError) -> None:
        """No engine took it."""
        self._see_end_of_life(error)
        self.backoff_s = min(_LONGEST_BACKOFF_S, 2 * max(self.backoff_s, _SETTLING_S))

    def abort_later(self, request_id: str) -> None:
        """If it does not end with the present life."""
        self._to_abort.add(request_id)

    def abort_now(self, request_id: str) -> bool:
        """Between two lives. False if no such request goes on."""
        output = self.journal.abort(request_id)
        if output is not None:
            self._aborted.append(output)
        return output is not None

    def take_aborted(self) -> list[RequestOutput]:
        aborted, self._aborted = self._aborted, []
        return aborted

    def _see_end_of_life(self, error: NovaCronError) -> None:
        self.failure = error.with_traceback(None)
        self.is_waiting = True
        for request_id in self._to_abort:
            self.abort_now(request_id)
        self._to_abort.clear()


def fixed(requests: tuple[Request, ...], seeds: random.Random, variant: str) -> tuple[Request, ...]:
    """The requests with all that may not change from life to life: seed and variant."""
    return tuple(
        with_seed(
            request
            if request.variant or not variant
            else msgspec.structs.replace(request, variant=variant),
            seeds,
        )
        for request in requests
    )
