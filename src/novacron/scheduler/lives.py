"""Lives: where each live request stands, and what it takes along from one place to the next."""

from __future__ import annotations

from collections.abc import Callable

from novacron.kv_cache.kv_cache_manager import KVCacheManager, PrefixHit
from novacron.scheduler.request_state import RequestState, RequestStatus
from novacron.scheduler.scheduler_totals import SchedulerTotals
from novacron.scheduler.sessions import Sessions
from novacron.scheduler.tiers import Tiers
from novacron.scheduler.waiting_queue import WaitingQueue


class Lives:
    """A request waits, perhaps loads, runs, perhaps is preempted and waits again, and ends. Blocks
    are held while it runs, and given back once no step writes to them any more.

    `running`: who gets tokens before whom in a step. Whoever reads these decides who goes where;
    nothing is decided here. `parks`: what a preempted request has computed is kept.
    """

    def __init__(
        self,
        waiting: WaitingQueue,
        kv_cache: KVCacheManager,
        *,
        tiers: Tiers,
        sessions: Sessions,
        totals: SchedulerTotals,
        parks: bool,
        see_end: Callable[[RequestState], None],
        clock: Callable[[], float],
    ) -> None:
        self._waiting = waiting
        self._kv_cache = kv_cache
        self._tiers = tiers
        self._sessions = sessions
        self._totals = totals
        self._parks = parks
        self._see_end = see_end
        self._clock = clock

        self.by_id: dict[str, RequestState] = {}
        self.running: list[RequestState] = []
        self.num_loading = 0  # neither waiting nor running: a tier brings a part of their prefix
        self._finished_ids: list[str] = []  # that ranks have not heard of
        self._preempted_ids: list[str] = []

    def add(self, state: RequestState) -> None:
        self.by_id[state.request.request_id] = state
        self._waiting.add(state)

    def load(self, state: RequestState) -> None:
        """A tier is going to bring something for a waiting request, which is LOADING."""
        self._waiting.remove(state.request.request_id)
        self.num_loading += 1

    def end_load(self, state: RequestState) -> None:
        """It has come, or it does not come; the request is WAITING again."""
        self.num_loading -= 1
        self._waiting.put_back(state)

    def start(self, state: RequestState, hit: PrefixHit, place: int) -> None:
        """The first waiting request runs from now on, at this place."""
        self._waiting.take(state)
        self.running.insert(place, state)
        state.status = RequestStatus.RUNNING
        self._kv_cache.adopt(state.blocks, hit)
        state.num_computed_tokens = state.num_planned_tokens = hit.num_tokens
        self._waiting.see_start(state, hit.num_tokens)
        state.has_loaded = False
        if state.first_scheduled_time_s is not None:
            return
        now_s = state.first_scheduled_time_s = self._clock()
        state.num_cached_tokens = hit.num_tokens
        state.engine_totals.prefix_queries_tokens += len(state.token_ids)
        state.engine_totals.prefix_hits_tokens += hit.num_tokens
        state.totals.cached_tokens += hit.num_tokens
        if state.request.session:
            self._sessions.start(state.request.session, len(state.token_ids), hit.num_tokens, now_s)

    def preempt(self, state: RequestState, *, blocks_hold: bool = True) -> None:
        """Take a running request's blocks away. When it next starts, it goes on from what is then
        still cached or lies in a tier, and computes the rest again. `blocks_hold`: what it has
        computed is in them."""
        assert state.num_in_flight == 0
        self.running.remove(state)
        self._waiting.see_stop(state, is_end=False)
        if self._parks and blocks_hold:
            self._tiers.park(state)
        self._release(state)
        state.status = RequestStatus.WAITING
        state.num_computed_tokens = state.num_planned_tokens = 0
        self._waiting.put_back(state)
        self._preempted_ids.append(state.request.request_id)
        self._totals.num_preemptions += 1
        state.totals.num_preempted += 1

    def retire(self, state: RequestState, *, failed: bool) -> None:
        """It has ended, wherever it was."""
        request_id = state.request.request_id
        del self.by_id[request_id]
        if state.status is RequestStatus.RUNNING:
            self.running.remove(state)
            self._finished_ids.append(request_id)
            self._waiting.see_stop(state, is_end=True)
        elif state.status is RequestStatus.LOADING:
            self.num_loading -= 1
        else:
            self._waiting.remove(request_id)
        state.status = RequestStatus.FINISHED
        self._see_end(state)
        if state.request.session and state.first_scheduled_time_s is not None:
            self._sessions.end(state.request.session, state.blocks.hashes, self._clock())
        self.settle(state, failed=failed)

    def settle(self, state: RequestState, *, failed: bool) -> None:
        """Give the blocks of one that has ended back, once no step writes to them any more."""
        state.has_failed |= failed
        if state.num_in_flight == 0:
            self._release(state)
        elif state.has_failed:  # nobody shall find them meanwhile
            self._kv_cache.forget(state.blocks)

    def take_news(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ids that were preempted, and that have ended, which ranks have not heard of."""
        news = tuple(self._preempted_ids), tuple(self._finished_ids)
        self._preempted_ids.clear()
        self._finished_ids.clear()
        return news

    def _release(self, state: RequestState) -> None:
        self._tiers.use(state)
        if state.has_failed:
            self._tiers.forget(state)
            self._kv_cache.forget(state.blocks)
        self._kv_cache.free(state.blocks)
