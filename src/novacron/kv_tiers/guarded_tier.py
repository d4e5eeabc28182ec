"""GuardedTier: a tier that may fail, be slow or hang, made harmless for whoever calls it.

No call takes longer than the deadline. What fails or is late counts against a breaker
(circuit_breaker.py); while that is open calls raise TierResting at once, and the tier is tried
again beside them: no request waits for a tier that was not well a moment ago. Loads and stores have
a breaker each, and a thread each: a full server can still be read from, and a store that hangs
holds no load up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import msgspec
import numpy as np

from novacron.kv_tiers.circuit_breaker import Breaker, BreakerConfig, BreakerState
from novacron.kv_tiers.lane import Lane
from novacron.kv_tiers.tier import (
    Bytes,
    KnowsScopes,
    KVTier,
    ListedTier,
    Put,
    ReadsParts,
    Record,
    SharedTier,
)
from novacron.records.block import BlockHash
from novacron.records.block_moves import TierTotals

Result = TypeVar("Result")

_CLOSING_S = 1.0

logger = logging.getLogger(__name__)


class TierResting(OSError):
    """The tier failed before, and is left alone for a while."""


class _Gate:
    """Calls of one kind to a tier. Without a deadline they are made on the caller's thread."""

    def __init__(
        self,
        name: str,
        deadline_s: float | None,
        config: BreakerConfig,
        probe: Callable[[], object] | None,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._deadline_s = deadline_s
        self._breaker = Breaker(config)
        self._probe = probe
        self._clock = clock
        self._lock = threading.Lock()
        self._lane = None if deadline_s is None else Lane(name)

    @property
    def state(self) -> BreakerState:
        return self._breaker.state

    def call(self, work: Callable[[], Result]) -> Result:
        """What `work` returns. Raises TierResting, TimeoutError, or what `work` raises."""
        if not self._may_call():
            raise TierResting(f"{self._name}: resting after errors")
        try:
            if self._lane is None or self._deadline_s is None:
                result = work()
            else:
                result = self._lane.call(work, self._deadline_s)
        except Exception as error:
            self._see(error)
            raise
        self._see(None)
        return result

    def post(self, work: Callable[[], object]) -> None:
        """Have it done if that is possible; nobody is told how it ended."""
        if self._lane is not None:
            self._lane.post(work)
        elif self._breaker.state is BreakerState.CLOSED:
            work()

    def close(self) -> bool:
        return self._lane is None or self._lane.close(_CLOSING_S)

    def _may_call(self) -> bool:
        with self._lock:
            was = self._breaker.state
            self._breaker, may = self._breaker.ask(self._clock())
            is_trial = may and was is not BreakerState.CLOSED
        if not is_trial or self._probe is None or self._lane is None:
            return may
        trial = self._lane.post(self._probe)
        if trial is None:
            self._see(TimeoutError("an earlier call has not ended yet"))
        else:
            trial.add_done_callback(self._see_trial)
        return False

    def _see_trial(self, trial: Future[object]) -> None:
        error = trial.exception()
        self._see(error if isinstance(error, Exception) else None)

    def _see(self, error: Exception | None) -> None:
        with self._lock:
            was = self._breaker
            now_s = self._clock()
            self._breaker = was.succeed() if error is None else was.fail(now_s)
            state, rest_s = self._breaker.state, self._breaker.rests_until_s - now_s
        if state is was.state:
            return
        if state is BreakerState.OPEN:
            is_ours = not isinstance(error, OSError)
            logger.warning(
                "KV tier, %s: %r. It is left alone for %.1f s, and requests do without it.",
                self._name, error, rest_s, exc_info=error if is_ours else None,
            )  # fmt: skip
        elif state is BreakerState.CLOSED:
            logger.warning("KV tier, %s: it works again.", self._name)


class GuardedTier:
    """Implements KVTier around one. `deadline_s` is for each call; None: calls are trusted to end,
    as those to a local disk, and only errors count.

    `refresh_s` is the time between two looks at what others have put into a ListedTier.

    With a deadline records are copied on their way, so that a call which nobody waits for any more
    can do no harm. Raises OSError for a call that failed, TierResting for one that was not made.
    """

    def __init__(
        self,
        tier: KVTier,
        name: str,
        *,
        deadline_s: float | None,
        breaker: BreakerConfig,
        refresh_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert refresh_s is None or isinstance(tier, ListedTier)
        self._tier = tier
        self._refresh_s = refresh_s
        self._deadline_s = deadline_s
        self._is_copying = deadline_s is not None
        probe = (lambda: tier.contains(())) if self._is_copying else None
        self._loads = _Gate(f"{name}, loads", deadline_s, breaker, probe, clock)
        self._stores = _Gate(f"{name}, stores", deadline_s, breaker, None, clock)
        self._looks = _Gate(f"{name}, listing", None, breaker, None, clock)
        self._scratch: list[Bytes] = []
        self._scratch_lock = threading.Lock()

    @property
    def inner(self) -> KVTier:
        """What is guarded."""
        return self._tier

    @property
    def used_bytes(self) -> int:
        return self._tier.used_bytes

    @property
    def states(self) -> tuple[BreakerState, BreakerState]:
        """Of loads and of stores."""
        return self._loads.state, self._stores.state

    @property
    def deadline_s(self) -> float | None:
        return self._deadline_s

    def put(self, records: Sequence[Record]) -> Put:
        if self._is_copying:
            records = [record._replace(data=record.data.copy()) for record in records]
        return self._stores.call(lambda: self._tier.put(records))

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        if not self._is_copying:
            return self._loads.call(lambda: self._tier.get(keys, into))
        buffers = self.take_scratch(len(into), into[0].nbytes) if into else []
        found = self.get_into_scratch(keys, buffers)
        for is_there, buffer, target in zip(found, buffers, into, strict=True):
            if is_there:
                np.copyto(target, buffer)
        self.give_back_scratch(buffers)
        return found

    def get_into_scratch(self, keys: Sequence[BlockHash], buffers: Sequence[Bytes]) -> list[bool]:
        """As `get`, into buffers that nobody uses again if this raises: a late call may still write
        to them."""
        return self._loads.call(lambda: self._tier.get(keys, buffers))

    def take_scratch(self, count: int, num_bytes: int) -> list[Bytes]:
        with self._scratch_lock:
            taken, self._scratch = self._scratch[:count], self._scratch[count:]
        return taken + [np.empty(num_bytes, np.uint8) for _ in range(count - len(taken))]

    def give_back_scratch(self, buffers: Sequence[Bytes]) -> None:
        with self._scratch_lock:
            self._scratch += buffers

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        wanted = tuple(keys)
        return self._loads.call(lambda: self._tier.contains(wanted))

    def delete(self, keys: Iterable[BlockHash]) -> None:
        wanted = tuple(keys)
        self._stores.post(lambda: self._tier.delete(wanted))

    def keys_of(self, scope: bytes) -> Sequence[BlockHash]:
        """See KnowsScopes; none of one that does not. May take longer than the deadline: nobody
        asks but who clears the cache."""
        tier = self._tier
        return (
            self._looks.call(lambda: tier.keys_of(scope)) if isinstance(tier, KnowsScopes) else ()
        )

    @property
    def is_shared(self) -> bool:
        return isinstance(self._tier, SharedTier)

    @property
    def refresh_s(self) -> float | None:
        """The time between two looks at what others have put; None: it is not looked for so."""
        return self._refresh_s

    def refresh(self) -> tuple[BlockHash, ...]:
        """All that it holds now."""
        assert isinstance(self._tier, ListedTier)
        tier = self._tier
        self._looks.call(tier.refresh)
        return tier.keys

    def count_leading(self, keys: Sequence[BlockHash]) -> int:
        """See SharedTier; 0 for one that is not shared."""
        if not isinstance(self._tier, SharedTier):
            return 0
        tier = self._tier
        return self._loads.call(lambda: tier.count_leading(keys))

    def close(self) -> None:
        """The tier is closed once nothing uses it any more; a call that hangs keeps it open."""
        if all([self._loads.close(), self._stores.close()]):
            self._tier.close()


class GuardedPartsTier(GuardedTier):
    """One around a tier that is trusted to end its calls, and reads parts. Implements ReadsParts,
    too."""

    def get_parts(
        self, keys: Sequence[BlockHash], headers: Bytes, blocks: Sequence[Bytes]
    ) -> list[bool]:
        assert self._deadline_s is None
        assert isinstance(self._tier, ReadsParts)
        tier = self._tier
        return self._loads.call(lambda: tier.get_parts(keys, headers, blocks))


def with_breakers(totals: TierTotals, tier: KVTier) -> TierTotals:
    """The totals of a tier, with how its breakers stand if it has some."""
    if not isinstance(tier, GuardedTier):
        return totals
    load, store = tier.states
    return msgspec.structs.replace(totals, load_breaker=load.value, store_breaker=store.value)
