"""Queues whose order is fixed when a request comes: by arrival, by priority."""

from __future__ import annotations

from collections import OrderedDict

from novacron.scheduler.keyed_heap import KeyedHeap
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.waiting_queue import StandingOrder


class FCFSQueue(StandingOrder):
    """First come, first served. Nothing that waits outranks what runs."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, RequestState] = OrderedDict()

    def add(self, state: RequestState) -> None:
        self._states[state.request.request_id] = state

    def put_back(self, state: RequestState) -> None:
        self._states[state.request.request_id] = state
        self._states.move_to_end(state.request.request_id, last=False)

    def peek(self) -> RequestState | None:
        return next(iter(self._states.values()), None)

    def take(self, state: RequestState) -> None:
        self.remove(state.request.request_id)

    def remove(self, request_id: str) -> None:
        del self._states[request_id]

    def to_shed(self) -> RequestState | None:
        """The newest."""
        return next((one for one in reversed(self._states.values()) if one.can_be_shed), None)

    def __len__(self) -> int:
        return len(self._states)


class PriorityQueue(StandingOrder):
    """The lower `priority` first, then by arrival at this scheduler (clocks of hosts differ)."""

    def __init__(self) -> None:
        self._heap: KeyedHeap[str] = KeyedHeap()
        self._states: dict[str, RequestState] = {}

    def add(self, state: RequestState) -> None:
        self._states[state.request.request_id] = state
        self._heap.set(state.request.request_id, *_place(state))

    put_back = add  # the key of a request is that of its arrival

    def peek(self) -> RequestState | None:
        first = self._heap.first()
        return None if first is None else self._states[first]

    def take(self, state: RequestState) -> None:
        self.remove(state.request.request_id)

    def remove(self, request_id: str) -> None:
        del self._states[request_id]
        self._heap.discard(request_id)

    def to_shed(self) -> RequestState | None:
        """The newest of the least urgent."""
        free = (state for state in self._states.values() if state.can_be_shed)
        return max(free, key=_place, default=None)

    def outranks(self, waiting: RequestState, running: RequestState) -> bool:
        return waiting.request.priority < running.request.priority

    def __len__(self) -> int:
        return len(self._states)


def _place(state: RequestState) -> tuple[int, int]:
    return state.request.priority, state.arrival_index
