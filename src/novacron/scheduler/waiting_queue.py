"""The order in which requests start and run. A policy is a queue; the scheduler knows no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from novacron.scheduler.request_state import RequestState


class WaitingQueue(Protocol):
    """Requests that do not run, first come the one to start next. Ids are unique. It also says how
    they stand to those that run, which the scheduler keeps in a list: who of them gets tokens first
    in a step, and who makes way.

    `add`, `put_back`, `take` and `remove` cost O(log n) or less, amortised.
    """

    # Who is next

    def add(self, state: RequestState) -> None:
        """Queue a new request in its order."""
        ...

    def put_back(self, state: RequestState) -> None:
        """Queue a preempted request, before all those of its order that came after it. Of several,
        the newest is put back first."""
        ...

    def peek(self) -> RequestState | None: ...

    def take(self, state: RequestState) -> None:
        """Remove a request that was the first when last asked, and is going to run."""
        ...

    def remove(self, request_id: str) -> None:
        """Take out a request, wherever it stands; it must be there."""
        ...

    def to_shed(self) -> RequestState | None:
        """Whom to send away if there are too many: none that has begun. None if all have."""
        ...

    def __len__(self) -> int: ...

    @property
    def num_tenants(self) -> int:
        """That share what there is; 0 where nobody counts them."""
        ...

    # Beside those that run

    def begin_step(self, running: list[RequestState]) -> None:
        """A step is going to be planned: bring the running ones into their order."""
        ...

    def outranks(self, waiting: RequestState, running: RequestState) -> bool:
        """Whether the first waiting request shall have its place in a step before `running`."""
        ...

    def givers(
        self, waiting: RequestState, running: Sequence[RequestState], place: int
    ) -> Sequence[RequestState]:
        """Those of the running ones, from `place` on, that may be preempted for the first waiting
        request; first the one to go first. Never for one that has only waited longer, and never so
        that both could go on taking each other's place."""
        ...

    def victim(self, running: Sequence[RequestState], place: int) -> RequestState:
        """Whom to preempt, from `place` on, if blocks run out."""
        ...

    def may_join(self, state: RequestState) -> bool:
        """Whether the request shall be in the step at all, beside those that are in it already."""
        ...

    def most_tokens(self, state: RequestState, num_tokens: int) -> int:
        """How many of its next tokens the step shall compute; 0 only for one that waits."""
        ...

    # What became of a request that was added

    def see_start(self, state: RequestState, num_cached_tokens: int) -> None: ...

    def see_part(self, state: RequestState, start: int, end: int) -> None:
        """The step computes these of its tokens."""
        ...

    def see_output(self, state: RequestState, num_tokens: int) -> None: ...

    def see_stop(self, state: RequestState, *, is_end: bool) -> None:
        """It runs no longer: it has ended, or was preempted and is going to be put back."""
        ...


class StandingOrder:
    """For queues whose order does not depend on what was computed: running requests stand in it,
    and whoever is before another may take his seat."""

    num_tenants = 0

    def outranks(self, waiting: RequestState, running: RequestState) -> bool:
        return False

    def begin_step(self, running: list[RequestState]) -> None:
        pass

    def givers(
        self, waiting: RequestState, running: Sequence[RequestState], place: int
    ) -> Sequence[RequestState]:
        return running[: place - 1 if place else None : -1]

    def victim(self, running: Sequence[RequestState], place: int) -> RequestState:
        return running[-1]

    def may_join(self, state: RequestState) -> bool:
        return True

    def most_tokens(self, state: RequestState, num_tokens: int) -> int:
        return num_tokens

    def see_start(self, state: RequestState, num_cached_tokens: int) -> None:
        pass

    def see_part(self, state: RequestState, start: int, end: int) -> None:
        pass

    def see_output(self, state: RequestState, num_tokens: int) -> None:
        pass

    def see_stop(self, state: RequestState, *, is_end: bool) -> None:
        pass
