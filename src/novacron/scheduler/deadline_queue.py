"""DeadlineQueue: whose first token is due first, and steps no longer than running requests bear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from novacron.scheduler.keyed_heap import KeyedHeap
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.step_pace import StepPace
from novacron.scheduler.waiting_queue import StandingOrder

_TTFT_S: Final = 60.0  # of requests that do not say
_LATE: Final = 4.0  # times its objective that one which is late already counts as due later
_PATIENT: Final = 4.0  # times the objective of whoever takes its seat


class DeadlineQueue(StandingOrder):
    """Earliest deadline first. One that is late already lets others go first that can still be in
    time, for a while: it counts as due `_LATE` of its objectives later, once. So nobody waits for
    ever, and under overload those that can be served in time are.

    Who has had its first token, and has said nothing of the others, gives its seat to one that
    wants its first token in a fourth of the time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: KeyedHeap[str] = KeyedHeap()
        self._states: dict[str, RequestState] = {}
        self._late: set[str] = set()  # that have been put off
        self._pace = StepPace()

    def __len__(self) -> int:
        return len(self._states)

    def add(self, state: RequestState) -> None:
        state.due_s = self._clock() + _objective_s(state)
        self._enter(state)

    def put_back(self, state: RequestState) -> None:
        if state.has_output and state.num_output_tokens > 0:  # its first token is not due any more
            state.due_s = self._clock() + _objective_s(state)
        self._enter(state)

    def peek(self) -> RequestState | None:
        while (first := self._heap.first()) is not None:
            state = self._states[first]
            if first in self._late or state.due_s >= self._clock():
                return state
            self._late.add(first)
            state.due_s += _LATE * _objective_s(state)
            self._enter(state)
        return None

    def take(self, state: RequestState) -> None:
        self.remove(state.request.request_id)

    def remove(self, request_id: str) -> None:
        del self._states[request_id]
        self._heap.discard(request_id)
        self._late.discard(request_id)

    def to_shed(self) -> RequestState | None:
        """The least urgent of those that have most time; the newest of such."""
        free = (state for state in self._states.values() if state.can_be_shed)
        return max(
            free,
            key=lambda one: (one.request.priority, _objective_s(one), one.arrival_index),
            default=None,
        )

    def begin_step(self, running: list[RequestState]) -> None:
        running.sort(key=_due)
        self._pace.begin(self._clock(), [state.request.tpot_slo_s for state in running])

    def outranks(self, waiting: RequestState, running: RequestState) -> bool:
        return waiting.due_s < running.due_s

    def givers(
        self, waiting: RequestState, running: Sequence[RequestState], place: int
    ) -> list[RequestState]:
        patience_s = _PATIENT * _objective_s(waiting)
        return [
            state
            for state in reversed(running[place:])
            if state.num_output_tokens > 0
            and not state.request.tpot_slo_s
            and _objective_s(state) >= patience_s
        ]

    def victim(self, running: Sequence[RequestState], place: int) -> RequestState:
        return max(running[place:], key=_due)

    def most_tokens(self, state: RequestState, num_tokens: int) -> int:
        return num_tokens if num_tokens == 1 else self._pace.most_tokens(num_tokens)

    def see_part(self, state: RequestState, start: int, end: int) -> None:
        self._pace.see(end - start)

    def _enter(self, state: RequestState) -> None:
        request_id = state.request.request_id
        self._states[request_id] = state
        self._heap.set(request_id, state.due_s, state.arrival_index)


def _objective_s(state: RequestState) -> float:
    return state.request.ttft_slo_s or _TTFT_S


def _due(state: RequestState) -> tuple[float, int]:
    return state.due_s, state.arrival_index
