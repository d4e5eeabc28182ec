"""The order in which waiting requests start. A policy is a queue; the scheduler knows no other."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Protocol

from novacron.scheduler.request_state import RequestState


class WaitingQueue(Protocol):
    """Requests that do not run, first come the one to start next. Ids are unique.

    `add`, `put_back`, `pop` and `remove` cost O(log n) or less, amortised.
    """

    def add(self, state: RequestState) -> None:
        """Queue a new request in its order."""
        ...

    def put_back(self, state: RequestState) -> None:
        """Queue a preempted request, before all those of its order that came after it. Of several,
        the newest is put back first."""
        ...

    def peek(self) -> RequestState | None: ...

    def pop(self) -> RequestState:
        """Remove and return the first; there must be one."""
        ...

    def remove(self, request_id: str) -> None:
        """Take out a request, wherever it stands; it must be there."""
        ...

    def outranks(self, waiting: RequestState, running: RequestState) -> bool:
        """Whether `waiting` shall run at the expense of `running`. Never so for requests that have
        only waited longer: a strict order, in which the running ones stay sorted."""
        ...

    def __len__(self) -> int: ...


class FCFSQueue:
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

    def pop(self) -> RequestState:
        return self._states.popitem(last=False)[1]

    def remove(self, request_id: str) -> None:
        del self._states[request_id]

    def outranks(self, waiting: RequestState, running: RequestState) -> bool:
        return False

    def __len__(self) -> int:
        return len(self._states)


class PriorityQueue:
    """The lower `priority` first, then by arrival at this scheduler (clocks of hosts differ)."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, RequestState]] = []
        self._states: dict[str, RequestState] = {}

    def add(self, state: RequestState) -> None:
        self._states[state.request.request_id] = state
        heapq.heappush(self._heap, (state.request.priority, state.arrival_index, state))

    put_back = add  # the key of a request is that of its arrival

    def peek(self) -> RequestState | None:
        self._drop_removed()
        return self._heap[0][2] if self._heap else None

    def pop(self) -> RequestState:
        self._drop_removed()
        state = heapq.heappop(self._heap)[2]
        del self._states[state.request.request_id]
        return state

    def remove(self, request_id: str) -> None:
        del self._states[request_id]
        if len(self._heap) > 2 * len(self._states) + 16:  # removed entries cost memory until popped
            self._heap = [entry for entry in self._heap if self._is_waiting(entry[2])]
            heapq.heapify(self._heap)

    def outranks(self, waiting: RequestState, running: RequestState) -> bool:
        return waiting.request.priority < running.request.priority

    def __len__(self) -> int:
        return len(self._states)

    def _drop_removed(self) -> None:
        while self._heap and not self._is_waiting(self._heap[0][2]):
            heapq.heappop(self._heap)

    def _is_waiting(self, state: RequestState) -> bool:
        return self._states.get(state.request.request_id) is state
