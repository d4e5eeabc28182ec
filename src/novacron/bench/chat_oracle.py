"""What the chat workload lets a policy know at most, between learned policies and Belady's optimum.

`ChatOrder` is told how the traffic is made (workloads.py): the chance that a conversation goes on
after so many turns, and how long people take to write. Nobody who only watches knows more than
that, before the future is known. With `goes_on` it is told as well which conversations are over,
which nobody can know, and only not when the others go on.

A conversation is worth the best ratio, over all horizons, of the chance that it goes on within it
to the time that its place is held for that (Gittins, 1979). Shared beginnings, upon which other
conversations build, leave last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import numpy as np

from novacron.cache_simulator.replay import run
from novacron.cache_simulator.tier_model import SimulatedTier
from novacron.cache_simulator.trace import Trace
from novacron.kv_tiers.eviction.chained import ChainedPolicy
from novacron.kv_tiers.eviction.policy import Block, MayGo

# As _chat in workloads.py says: after one turn in three nothing follows, else Beta(8.5, 1.5).
_FOLLOWS_FIRST: Final = 2 / 3
_ALPHA: Final = 8.5
_BETA: Final = 1.5
_PAUSE_S: Final = 45.0
_SIGMA: Final = 1.2

_PER_OCTAVE: Final = 8
_EDGES_S: Final = 0.25 * 2.0 ** (np.arange(18 * _PER_OCTAVE) / _PER_OCTAVE)  # to 18 h
_SURVIVAL: Final = np.array(
    [0.5 * math.erfc(math.log(edge / _PAUSE_S) / (_SIGMA * math.sqrt(2))) for edge in _EDGES_S]
)

GoesOn = Callable[[bytes, float], bool]


@dataclass(eq=False, slots=True)
class _Conversation:
    last_s: float
    num_turns: int = 1
    open: dict[bytes, Block] = field(default_factory=dict)


class ChatOrder:
    """Implements LeafOrder. `goes_on` tells of a session whether a request of it comes after a
    moment."""

    def __init__(self, goes_on: GoesOn | None = None) -> None:
        self._goes_on = goes_on
        self._sessions: dict[bytes, _Conversation] = {}
        self._open: set[bytes] = set()  # those with blocks that may be chosen

    def insert(self, block: Block, now_s: float) -> None:
        self._see(block.origin.session, now_s)

    def touch(self, block: Block, idle_s: float, now_s: float) -> None:
        self._see(block.origin.session, now_s)
        if block.num_children == 0:
            self.leave(block)

    def enter(self, block: Block, now_s: float) -> None:
        session = block.origin.session
        self._sessions[session].open[block.key] = block
        self._open.add(session)

    def leave(self, block: Block) -> None:
        one = self._sessions[block.origin.session]
        one.open.pop(block.key, None)
        if not one.open:
            self._open.discard(block.origin.session)

    def choose(self, now_s: float, may_go: MayGo) -> Block | None:
        worst = min(self._open, key=lambda session: self._worth(session, now_s), default=None)
        return None if worst is None else next(iter(self._sessions[worst].open.values()))

    def gone(self, block: Block, *, was_evicted: bool) -> None:
        pass

    def regretted(self, block: Block, idle_s: float, now_s: float) -> None:
        pass

    def expired(self, now_s: float) -> Block | None:
        return None

    def _see(self, session: bytes, now_s: float) -> None:
        one = self._sessions.setdefault(session, _Conversation(now_s))
        if now_s > one.last_s:
            one.last_s = now_s
            one.num_turns += 1

    def _worth(self, session: bytes, now_s: float) -> float:
        one = self._sessions[session]
        chance = chance_to_go_on(one.num_turns)
        if self._goes_on is not None:
            chance = float(self._goes_on(session, now_s))
        idle_s = now_s - one.last_s
        bucket = 0 if idle_s <= _EDGES_S[0] else int(math.log2(idle_s / 0.25) * _PER_OCTAVE)
        return float(_worths(chance)[min(bucket, len(_EDGES_S) - 1)])


def chance_to_go_on(num_turns: int) -> float:
    """Of a conversation that has had so many turns: the mean of what is left of the beta
    distribution, since those that do not go on are not seen any more."""
    if num_turns == 1:
        return _FOLLOWS_FIRST * _ALPHA / (_ALPHA + _BETA)
    return (_ALPHA + num_turns - 1) / (_ALPHA + _BETA + num_turns - 1)


@cache
def _worths(chance: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """For each idle time of _EDGES_S."""
    waits = chance * _SURVIVAL + 1 - chance  # not back by then
    worths = np.zeros(len(_EDGES_S))
    for place in range(len(_EDGES_S) - 1):
        later = waits[place:] / waits[place]
        steps = np.diff(_EDGES_S[place:])
        held_s = (0.5 * (later[:-1] + later[1:]) * steps).cumsum()
        worths[place] = ((1 - later[1:]) / held_s).max()
    return worths


def hit_rate_knowing(trace: Trace, num_blocks: int, *, who: bool) -> float:
    """Share of prompt tokens that a tier of so many blocks finds of a chat trace. `who`: it is told
    which conversations are over."""
    last_s = {request.session: request.arrival_s for request in trace.requests}
    order = ChatOrder((lambda session, now_s: last_s[session] > now_s) if who else None)
    policy = ChainedPolicy(order, num_tombstones=0)
    hits = run(trace, [SimulatedTier(num_blocks, policy)])
    prompt_tokens = sum(request.prompt_tokens for request in trace.requests)
    return hits.found[0] * trace.block_tokens / prompt_tokens
