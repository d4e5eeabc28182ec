"""Prefetch in a replay: blocks of sessions whose next turn is due come into a buffer.

As the server does it (scheduler/prefetch.py, sessions.py): a session is due some seconds before its
usual pause is over, which is a running mean; what a slower tier has of its chain comes into a
buffer in which nothing else is stored, within a bandwidth. Requests are moments here, so nothing is
late: how much of the buffer is used is an upper bound, too.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from novacron.cache_simulator.tier_model import SimulatedTier
from novacron.cache_simulator.trace import TraceRequest
from novacron.kv_tiers.eviction.choice import LRU, make_policy
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin

_HORIZON_S: Final = 10.0
_PAUSE_WEIGHT: Final = 0.3  # of the newest pause in the running mean
_MOST_SESSIONS: Final = 4096


@dataclass(slots=True)
class _Session:
    chain: tuple[BlockHash, ...]
    ended_s: float
    pause_s: float | None = None
    turn: int = 0


class Ahead:
    """`faster` have what need not be fetched, `slower` what may be."""

    def __init__(
        self,
        num_blocks: int,
        blocks_per_s: float,
        faster: Sequence[SimulatedTier],
        slower: Sequence[SimulatedTier],
    ) -> None:
        self._buffer = SimulatedTier(num_blocks, make_policy(LRU, num_blocks))
        self._num_blocks = num_blocks
        self._blocks_per_s = blocks_per_s
        self._faster = tuple(faster)
        self._slower = tuple(slower)
        self._sessions: dict[bytes, _Session] = {}
        self._due: list[tuple[float, bytes, int]] = []
        self._free_s = 0.0  # when the bandwidth is free again
        self._unused: set[BlockHash] = set()
        self.num_fetched = self.num_used = 0

    def has(self, key: BlockHash, now_s: float) -> bool:
        """Whether the buffer has the block, which counts as used then."""
        if key not in self._buffer.held:
            return False
        self._buffer.policy.touch(key, now_s)
        if key in self._unused:
            self._unused.remove(key)
            self.num_used += 1
        return True

    def advance(self, now_s: float) -> None:
        """Fetch what was due until now."""
        while self._due and self._due[0][0] <= now_s:
            due_s, tag, turn = heapq.heappop(self._due)
            session = self._sessions.get(tag)
            if session is not None and session.turn == turn:
                self._fetch(session, due_s, now_s)

    def see(self, request: TraceRequest) -> None:
        """A request has come, and its answer, at one moment."""
        if not request.session:
            return
        now_s = request.arrival_s
        session = self._sessions.pop(request.session, None)
        if session is None:
            session = _Session(request.blocks, now_s)
        else:
            pause_s = now_s - session.ended_s
            old = session.pause_s
            session.pause_s = pause_s if old is None else old + _PAUSE_WEIGHT * (pause_s - old)
        session.chain, session.ended_s, session.turn = request.blocks, now_s, session.turn + 1
        self._sessions[request.session] = session
        if len(self._sessions) > _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        if session.pause_s is not None:
            due_s = now_s + max(0.0, session.pause_s - _HORIZON_S)
            heapq.heappush(self._due, (due_s, request.session, session.turn))

    def _fetch(self, session: _Session, due_s: float, now_s: float) -> None:
        """Up to the first block that nobody has, as far as the time until now allows."""
        self._free_s = max(self._free_s, due_s)
        parent = None
        for depth, key in enumerate(session.chain[: self._num_blocks]):
            is_near = key in self._buffer.held or any(key in tier.held for tier in self._faster)
            if not is_near:
                if not any(key in tier.held for tier in self._slower) or self._free_s > now_s:
                    return
                self._free_s += 1 / self._blocks_per_s
                self._buffer.store(key, BlockOrigin(parent, depth), now_s)
                self._unused.add(key)
                self.num_fetched += 1
            parent = key
