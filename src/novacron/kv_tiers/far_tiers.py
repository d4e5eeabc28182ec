"""FarTiers: what is special about tiers that are not of this machine, which others fill as well.

They are asked, or listed from time to time, on threads of their own: what the scheduler does not
know of yet is news like any other. `far` is a GuardedTier with a deadline.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from novacron.kv_tiers.guarded_tier import GuardedTier
from novacron.kv_tiers.tier import KVTier
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, LoadBlocks, LookUp, TierKeys

_CLOSING_S = 0.2

logger = logging.getLogger(__name__)


class FarTiers:
    """Those among `tiers` that are far. `tell` gets the news, `see_lookup` which tier was asked
    what it has, and how many seconds that took; from any thread."""

    def __init__(
        self,
        tiers: Sequence[KVTier],
        tell: Callable[[BlockNews], None],
        clock: Callable[[], float],
        see_lookup: Callable[[int, float], None],
    ) -> None:
        self._far = {
            index: tier
            for index, tier in enumerate(tiers)
            if isinstance(tier, GuardedTier) and tier.deadline_s is not None
        }
        self._tell = tell
        self._clock = clock
        self._see_lookup = see_lookup
        self._changed = threading.Condition()
        self._lookups: deque[LookUp] = deque()
        self._is_closed = False
        self._threads = [
            threading.Thread(
                target=self._run_listing, args=(index, tier), name="list-blocks", daemon=True
            )
            for index, tier in self._far.items()
            if tier.refresh_s is not None
        ]
        if any(tier.is_shared for tier in self._far.values()):
            self._threads.append(
                threading.Thread(target=self._run_lookups, name="look-up-blocks", daemon=True)
            )
        for thread in self._threads:
            thread.start()

    @property
    def has_any(self) -> bool:
        return bool(self._far)

    def is_far(self, index: int) -> bool:
        return index in self._far

    def until_s(self, load: LoadBlocks) -> float:
        """When to stop bringing its blocks from afar, if that begins now: whoever waits for them
        has waited as long as for one call."""
        deadlines = {self._deadline_s(block.tier) for block in load.blocks}
        return self._clock() + min(deadlines, default=math.inf)

    def look_up(self, lookups: Iterable[LookUp]) -> None:
        """Have these answered."""
        wanted = tuple(lookups)
        if wanted:
            with self._changed:
                self._lookups.extend(wanted)
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_CLOSING_S)

    def _deadline_s(self, index: int) -> float:
        tier = self._far.get(index)
        return math.inf if tier is None or tier.deadline_s is None else tier.deadline_s

    def _run_lookups(self) -> None:
        while True:
            with self._changed:
                while not self._lookups and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                lookup = self._lookups.popleft()
            asked_s = self._clock()
            found = lookup.keys[: self._count(lookup)]
            self._see_lookup(lookup.tier, self._clock() - asked_s)
            added = (TierKeys(lookup.tier, found),) if found else ()
            self._tell(BlockNews(added=added, looked_up=(lookup.lookup_id,)))

    def _count(self, lookup: LookUp) -> int:
        try:
            return self._far[lookup.tier].count_leading(lookup.keys)
        except OSError:
            return 0  # its guard has seen it
        except Exception:  # somebody waits for this
            logger.exception("A KV tier could not be asked.")
            return 0

    def _run_listing(self, index: int, tier: GuardedTier) -> None:
        known: frozenset[BlockHash] = frozenset()
        while True:
            try:
                held = frozenset(tier.refresh())
            except OSError:
                held = known
            except Exception:
                logger.exception("A KV tier could not be listed.")
                held = known
            if held != known:
                added = TierKeys(index, tuple(held - known))
                gone = TierKeys(index, tuple(known - held))
                self._tell(BlockNews(added=(added,), removed=(gone,)))
                known = held
            with self._changed:
                if self._is_closed or self._changed.wait_for(
                    lambda: self._is_closed, tier.refresh_s
                ):
                    return
