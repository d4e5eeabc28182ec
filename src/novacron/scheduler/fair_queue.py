"""FairQueue: priorities that age, and in each of them tenants in turn by what they were served.

What is new beside a queue: tenants pay for what their running requests get, and who is ahead of his
share gives way, a seat or the head of a step, to who is behind. At length in docs/fairness.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from novacron.scheduler.fair_level import FairLevel
from novacron.scheduler.keyed_heap import KeyedHeap
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.share_account import COST_CACHED, COST_OUTPUT, COST_PROMPT, Account, Turn
from novacron.scheduler.shared_steps import MUCH_MORE, SharedSteps

NAMED_STEP: Final = 10  # between two named priorities: high -10, normal 0, low 10
_MOST_URGENT: Final = -100  # beyond, all are alike; so there are few levels
_LEAST_URGENT: Final = 100


class FairQueue:
    """A WaitingQueue. The lower priority first, in it the tenant that has had least over its
    weight, of its requests the first.

    A priority whose requests wait, none being let in, counts as more urgent by a named one after
    each `ageing_s` (0: never), up to the most urgent that is there; and with that priority the one
    that is let in runs. A waiting request takes the seat of a less urgent one; or, of
    equal priority, of a
    tenant that has MUCH_MORE seats over its weight than its own would have.
    """

    def __init__(self, *, ageing_s: float, chunk_tokens: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._s_per_level = ageing_s / NAMED_STEP
        self._levels: dict[int, FairLevel] = {}
        self._order: KeyedHeap[int] = KeyedHeap()  # of the levels in which somebody waits
        self._states: dict[str, RequestState] = {}
        self._steps = SharedSteps(chunk_tokens, ageing_s)
        self._num_running: dict[Account, int] = {}
        self._start: tuple[RequestState | None, Turn] = None, (0.0, 0.0)  # the last, and its turn
        self._most_urgent = 0  # of the levels in which somebody is, or was lately
        self._chunk_tokens = chunk_tokens
        self._num_tenants = 0  # at their levels; one has nobody to give anything up for
        self._now_s = clock()

    def __len__(self) -> int:
        return len(self._states)

    @property
    def num_tenants(self) -> int:
        return self._num_tenants

    # Who is next

    def add(self, state: RequestState) -> None:
        self._now_s = self._clock()
        level = self._level_of(state)
        state.level = level.number
        self._enter(level, state)
        level.add(state, self._now_s)

    def put_back(self, state: RequestState) -> None:
        level = self._level_of(state)
        state.level = level.number
        self._enter(level, state)
        level.put_back(state)

    def peek(self) -> RequestState | None:
        number = self._order.first()
        return None if number is None else self._levels[number].peek()

    def take(self, state: RequestState) -> None:
        del self._states[state.request.request_id]
        level = self._level_of(state)
        state.level = self._granted(level)
        level.take(state)
        level.waits_since_s = self._now_s
        self._note(level)

    def remove(self, request_id: str) -> None:
        state = self._states.pop(request_id)
        level = self._level_of(state)
        level.remove(state)
        self._note(level)

    def to_shed(self) -> RequestState | None:
        for number in sorted(self._levels, reverse=True):
            state = self._levels[number].to_shed()
            if state is not None:
                return state
        return None

    # Beside those that run

    def begin_step(self, running: list[RequestState]) -> None:
        now_s = self._now_s = self._clock()
        self._steps.begin(now_s)
        for level in list(self._levels.values()):
            level.forget(now_s)
            if not level.num_seen:
                del self._levels[level.number]
        self._most_urgent = min(self._levels, default=0)
        self._num_tenants = sum(level.num_seen for level in self._levels.values())
        if len(self._num_running) > 1:
            running.sort(key=_place)

    def outranks(self, waiting: RequestState, running: RequestState) -> bool:
        """Of equal priority, whoever has had less goes first in a step."""
        if self._num_tenants < 2:
            return False
        level = self._granted(self._level_of(waiting))
        return (level, *waiting.account.turn) < (running.level, *running.account.turn)

    def givers(
        self, waiting: RequestState, running: Sequence[RequestState], place: int
    ) -> list[RequestState]:
        level = self._granted(self._level_of(waiting))
        mine = waiting.account
        wanted = MUCH_MORE * (mine.num_running + 1) / mine.weight
        taken: dict[Account, int] = {}
        less_urgent: list[RequestState] = []
        ahead: list[tuple[float, RequestState]] = []
        for state in reversed(running[place:]):
            if state.level > level:
                less_urgent.append(state)
            elif state.level == level and state.account is not mine:
                account = state.account
                seats = (account.num_running - taken.get(account, 0)) / account.weight
                if seats >= wanted:
                    taken[account] = taken.get(account, 0) + 1
                    ahead.append((-seats, state))
        ahead.sort(key=lambda pair: pair[0])
        return less_urgent + [state for _, state in ahead]

    def victim(self, running: Sequence[RequestState], place: int) -> RequestState:
        """The newest of the tenant with most seats over its weight, among the least urgent."""
        return max(running[place:], key=lambda s: (s.level, s.account.seats, s.arrival_index))

    def may_join(self, state: RequestState) -> bool:
        if self._num_tenants < 2 or not self._steps.has_prompts:
            return True
        level = state.level
        if state.request.request_id in self._states:
            level = self._granted(self._level_of(state))
        return self._steps.may_join(state, level, has_much_more=self._has_much_more(state))

    def most_tokens(self, state: RequestState, num_tokens: int) -> int:
        if num_tokens == 1:
            return 1
        return self._steps.most_tokens(state, num_tokens, has_much_more=self._has_much_more(state))

    # What tenants pay for

    def see_start(self, state: RequestState, num_cached_tokens: int) -> None:
        account = state.account
        self._start = state, account.turn
        account.num_running += 1
        self._num_running[account] = account.num_running
        self._charge_to(state, num_cached_tokens, COST_CACHED)
        most = state.stop_conditions.max_output_tokens - state.num_output_tokens
        state.num_reserved_tokens = account.reserve(max(0, most))
        self._level_of(state).see(account, self._now_s)

    def see_part(self, state: RequestState, start: int, end: int) -> None:
        num_tokens = end - start
        if num_tokens == 1 and state.num_charged_tokens == state.num_given_tokens:
            state.left_out_since_s = None
            return
        has_much_more = num_tokens > 1 and self._has_much_more(state)
        started, turn = self._start
        if started is not state:
            turn = state.account.turn
        self._steps.see(state, num_tokens, turn, has_much_more=has_much_more)
        if state.num_charged_tokens < state.num_given_tokens:
            self._charge_to(state, end, COST_PROMPT)
            self._level_of(state).see_cost(state.account)

    def see_output(self, state: RequestState, num_tokens: int) -> None:
        account = state.account
        account.charge(COST_OUTPUT * num_tokens)
        num_expected = min(num_tokens, state.num_reserved_tokens)
        state.num_reserved_tokens -= num_expected
        account.release(num_expected)
        if num_expected < num_tokens:
            self._level_of(state).see_cost(account)

    def see_stop(self, state: RequestState, *, is_end: bool) -> None:
        account = state.account
        account.num_running -= 1
        if account.num_running:
            self._num_running[account] = account.num_running
        else:
            del self._num_running[account]
        account.release(state.num_reserved_tokens)
        state.num_reserved_tokens = 0
        if is_end:
            account.see_end(state.num_output_tokens)
        self._level_of(state).see(account, self._now_s)

    # Parts

    def _level_of(self, state: RequestState) -> FairLevel:
        """The one that it waits in, whatever it runs with."""
        number = min(max(state.request.priority, _MOST_URGENT), _LEAST_URGENT)
        level = self._levels.get(number)
        if level is None:
            level = self._levels[number] = FairLevel(number)
        return level

    def _enter(self, level: FairLevel, state: RequestState) -> None:
        self._states[state.request.request_id] = state
        if level.num_waiting == 0:
            level.waits_since_s = self._now_s
        self._set_place(level)

    def _note(self, level: FairLevel) -> None:
        if level.num_waiting:
            self._set_place(level)
        else:
            self._order.discard(level.number)

    def _set_place(self, level: FairLevel) -> None:
        """Places of waiting levels do not change with time, only with who is let in: the number in
        seconds and since when it waits add up to the time at which it would be that of number 0."""
        if self._s_per_level:
            ripe_s = level.number * self._s_per_level + level.waits_since_s
            self._order.set(level.number, ripe_s, level.number)
        else:
            self._order.set(level.number, level.number)

    def _granted(self, level: FairLevel) -> int:
        """The priority that the first of the level has come to, having waited so long."""
        if level.number <= self._most_urgent or not self._s_per_level:
            return level.number
        aged = level.number - int((self._now_s - level.waits_since_s) / self._s_per_level)
        return max(aged, self._most_urgent)

    def _has_much_more(self, state: RequestState) -> bool:
        """Than somebody who is there, or may come again; or it is less urgent than somebody."""
        if self._num_tenants < 2 or not self._chunk_tokens:
            return False
        level = self._level_of(state)
        if self._most_urgent < min(level.number, state.level):
            return True
        account = state.account
        has_several = account.num_running + account.num_waiting > 1
        return has_several and account.load >= MUCH_MORE * level.least_load()

    def _charge_to(self, state: RequestState, end: int, cost: float) -> None:
        """Tokens up to `end` that the request came with: once, whatever becomes of them."""
        end = min(end, state.num_given_tokens)
        if end > state.num_charged_tokens:
            state.account.charge(cost * (end - state.num_charged_tokens))
            state.num_charged_tokens = end


def _place(state: RequestState) -> tuple[float, ...]:
    return state.level, *state.account.turn, state.arrival_index
