"""FairLevel: the waiting requests of one priority, tenants in turn by what they were served."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from novacron.scheduler.keyed_heap import KeyedHeap
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.share_account import Account

RECENTLY_S: Final = 30.0  # whoever was there so lately may come again


@dataclass(eq=False, slots=True)
class _Flow:
    account: Account
    waiting: OrderedDict[str, RequestState] = field(default_factory=OrderedDict)


class FairLevel:
    """First comes the tenant whose turn it is, and of its requests the earliest.

    A tenant that comes back is lifted to what the one was served who is next: what it did not use
    while it was away is lost, what it has had beyond its share is remembered. What is reserved for
    the others' running requests is not counted: they get it beside its own.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.waits_since_s = 0.0  # that nobody of it was let in, though somebody waits
        self.num_waiting = 0
        self._flows: dict[str, _Flow] = {}
        self._queue: KeyedHeap[str] = KeyedHeap()  # of tenants that have waiting requests
        self._moved: dict[str, _Flow] = {}  # whose place in it may have changed
        self._now_s = 0.0
        self._time = 0.0  # what the last tenant that was let in had been served
        self._seen_s: OrderedDict[str, float] = OrderedDict()
        self._loads: KeyedHeap[str] = KeyedHeap()  # of the tenants that were seen

    @property
    def num_seen(self) -> int:
        """Tenants that are there, or were recently."""
        return len(self._seen_s)

    def add(self, state: RequestState, now_s: float) -> None:
        """Queue a new request."""
        request = state.request
        flow = self._flows.get(request.tenant)
        if flow is None:
            flow = self._flows[request.tenant] = _Flow(Account(request.tenant, request.weight))
        account = flow.account
        account.weight = request.weight
        self._now_s = now_s
        if not flow.waiting:
            account.served = max(account.served, self._lowest())
        state.account = account
        state.num_given_tokens = state.num_tokens
        flow.waiting[request.request_id] = state
        self._note(flow, 1)
        self.see(account, now_s)

    def put_back(self, state: RequestState) -> None:
        tenant = state.request.tenant
        if tenant not in self._flows:  # forgotten while a tier brought something for it
            self._flows[tenant] = _Flow(state.account)
        flow = self._flows[tenant]
        state.account = flow.account
        flow.waiting[state.request.request_id] = state
        flow.waiting.move_to_end(state.request.request_id, last=False)
        self._note(flow, 1)

    def peek(self) -> RequestState | None:
        tenant = self._first()
        return None if tenant is None else next(iter(self._flows[tenant].waiting.values()))

    def take(self, state: RequestState) -> None:
        """Remove one that is let in."""
        self._time = max(self._time, state.account.served)
        self.remove(state)

    def remove(self, state: RequestState) -> None:
        flow = self._flow_of(state)
        del flow.waiting[state.request.request_id]
        self._note(flow, -1)

    def see(self, account: Account, now_s: float) -> None:
        """Something of the account has changed: costs, or how many run."""
        flow = self._flows[account.tenant]
        if flow.waiting:
            self._moved[account.tenant] = flow
        self._seen_s[account.tenant] = now_s
        self._seen_s.move_to_end(account.tenant)
        self._loads.set(account.tenant, account.load)

    def see_cost(self, account: Account) -> None:
        """The same, where only costs have. Called for every token."""
        flow = self._flows[account.tenant]
        if flow.waiting:
            self._moved[account.tenant] = flow

    def forget(self, now_s: float) -> None:
        """Drop those who were not there for a while, unless they have had more than those who are:
        they shall not be able to run away from it."""
        while self._seen_s:
            tenant, seen_s = next(iter(self._seen_s.items()))
            if now_s - seen_s < RECENTLY_S:
                return
            account = self._flows[tenant].account
            is_ahead = self.num_waiting > 0 and account.served > self._time
            if account.is_idle and not is_ahead:
                del self._seen_s[tenant], self._flows[tenant]
                self._loads.discard(tenant)
            else:
                self._seen_s[tenant] = now_s
                self._seen_s.move_to_end(tenant)

    def least_load(self) -> float:
        """Requests over weight of the tenant that has the fewest; somebody was seen."""
        key = self._loads.first_key()
        assert key is not None
        return key[0]

    def to_shed(self) -> RequestState | None:
        """The newest request of the tenant that has most waiting over its weight, of those that
        have not begun. None if all have."""
        by_length = sorted(
            (flow for flow in self._flows.values() if flow.waiting),
            key=lambda flow: -len(flow.waiting) / flow.account.weight,
        )
        for flow in by_length:
            for state in reversed(flow.waiting.values()):
                if state.can_be_shed:
                    return state
        return None

    def _flow_of(self, state: RequestState) -> _Flow:
        return self._flows[state.request.tenant]

    def _note(self, flow: _Flow, num_more: int) -> None:
        account = flow.account
        account.num_waiting += num_more
        self.num_waiting += num_more
        self._loads.set(account.tenant, account.load)
        self._seen_s.setdefault(account.tenant, self._now_s)
        self._moved[account.tenant] = flow

    def _first(self) -> str | None:
        self._settle()
        return self._queue.first()

    def _lowest(self) -> float:
        """What whoever comes is taken to have been served."""
        first = self._first()
        return self._time if first is None else self._flows[first].account.served

    def _settle(self) -> None:
        for tenant, flow in self._moved.items():
            if flow.waiting:
                self._queue.set(tenant, *flow.account.turn)
            else:
                self._queue.discard(tenant)
        self._moved.clear()
