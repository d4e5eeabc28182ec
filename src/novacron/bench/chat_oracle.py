"""What the chat workload lets a policy know at most, between learned policies and Belady's optimum.

`ChatOrder` is told how the traffic is made (workloads.py): the chance that a conversation goes on
after so many turns, and how long people take to write. Nobody who only watches knows more than
that, before the future is known. With `last_s` it is told as well which conversations are over,
which nobody can know, and only not when the others go on.

A conversation is worth the best ratio, over all horizons, of the chance that it goes on within it
to the time that its place is held for that (Gittins, 1979). Shared beginnings, upon which other
conversations build, leave last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Final

import numpy as np

from novacron.cache_simulator.replay import run
from novacron.cache_simulator.tier_model import SimulatedTier
from novacron.cache_simulator.trace import Trace
from novacron.kv_tiers.eviction.chained import ChainedPolicy
from novacron.kv_tiers.eviction.lru import LruOrder
from novacron.kv_tiers.eviction.policy import Block, MayGo
from novacron.records.block import BlockHash

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


class ChatOrder(LruOrder):
    """Implements LeafOrder. `last_s`: of each session, when its last request comes, if told."""

    def __init__(self, last_s: Mapping[bytes, float] | None = None) -> None:
        super().__init__()
        self._last_s = last_s
        self._open: dict[BlockHash, Block] = {}

    def enter(self, block: Block, now_s: float) -> None:
        self._open[block.key] = block

    def leave(self, block: Block) -> None:
        self._open.pop(block.key, None)

    def choose(self, now_s: float, may_go: MayGo) -> Block | None:
        return min(self._open.values(), key=lambda block: self._worth(block, now_s), default=None)

    def _worth(self, block: Block, now_s: float) -> float:
        """By the block's own uses: a beginning that conversations share outlives the one that made
        it."""
        chance = chance_to_go_on(1 + block.generation + block.num_uses)
        if self._last_s is not None and block.used_s <= self._last_s[block.origin.session]:
            chance = float(self._last_s[block.origin.session] > now_s)
        idle_s = now_s - block.used_s
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
    order = ChatOrder(last_s if who else None)
    policy = ChainedPolicy(order, num_tombstones=0)
    hits = run(trace, [SimulatedTier(num_blocks, policy)])
    prompt_tokens = sum(request.prompt_tokens for request in trace.requests)
    return hits.found[0] * trace.block_tokens / prompt_tokens
