"""SharedSteps: what a step leaves out for those who go before, or may come. Pure.

Two rules, both only where more than one tenant or priority is there, or was lately. A step that
computes prompts leaves out what is less urgent, and those who have far more requests and whose turn
is later: their tokens would make it longer, and they lose nothing but the wait. And prompts of
those who have far more are computed in small parts, so that whoever comes does not wait for a long
step to end.
"""

from __future__ import annotations

from novacron.scheduler.request_state import RequestState, RequestStatus
from novacron.scheduler.share_account import Turn

MUCH_MORE = 2.0  # times as many, in proportion to weights


class SharedSteps:
    """`chunk_tokens`: most prompt tokens in a step of those who have much more; 0: no limit.
    `patience_s`: then a request is not left out any more; 0: there is no end of it."""

    def __init__(self, chunk_tokens: int, patience_s: float) -> None:
        self._chunk_tokens = chunk_tokens
        self._patience_s = patience_s
        self._chunk_left = chunk_tokens
        self._urgent: int | None = None  # the most urgent prompt's level in this step
        self._turn: Turn | None = None  # the earliest, of prompts of those who have not much more
        self._now_s = 0.0

    def begin(self, now_s: float) -> None:
        self._chunk_left = self._chunk_tokens
        self._urgent = self._turn = None
        self._now_s = now_s

    @property
    def has_prompts(self) -> bool:
        """Without, nobody is left out."""
        return self._urgent is not None

    def may_join(self, state: RequestState, level: int, *, has_much_more: bool) -> bool:
        is_behind = has_much_more and self._turn is not None and state.account.turn > self._turn
        if not is_behind and (self._urgent is None or level <= self._urgent):
            return True
        if state.left_out_since_s is None:
            state.left_out_since_s = self._now_s
        waits_s = self._now_s - state.left_out_since_s
        return 0 < self._patience_s <= waits_s

    def most_tokens(self, state: RequestState, num_tokens: int, *, has_much_more: bool) -> int:
        """How many of its next tokens the step may compute; a running request has at least one."""
        if not has_much_more:
            return num_tokens
        is_running = state.status is RequestStatus.RUNNING
        return min(num_tokens, max(self._chunk_left, int(is_running)))

    def see(self, state: RequestState, num_tokens: int, turn: Turn, *, has_much_more: bool) -> None:
        """So many are in the step; `turn` is its tenant's, without them."""
        state.left_out_since_s = None
        if num_tokens > 1:
            self._urgent = state.level if self._urgent is None else min(self._urgent, state.level)
            if has_much_more:
                self._chunk_left = max(0, self._chunk_left - num_tokens)
            else:
                self._turn = turn if self._turn is None else min(self._turn, turn)
