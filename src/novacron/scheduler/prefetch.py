"""Prefetch: which blocks to bring into the prefetch buffer before they are needed. Pure decisions.

Certain: a request that waits for its turn will need its prefix, and a pinned prefix is wanted from
the start. Likely: a session whose next turn is due. Tokens nobody has computed exist nowhere, so
nothing is guessed beyond blocks that a slower tier has.

The buffer is a tier of its own, so what is fetched in vain displaces only what else was. How much
is fetched is bounded in bytes a second, and mode `adaptive` fetches likely blocks only as long as
enough of those before were used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from novacron.kv_tiers.tier_index import TierIndex
from novacron.records.block import BlockHash
from novacron.records.block_moves import PromoteBlocks

PrefetchMode = Literal["off", "conservative", "aggressive", "adaptive"]
Chain = Sequence[BlockHash]

_LOOK_EVERY_S: Final = 0.2  # at sessions
_HORIZON_S: Final = 10.0  # a session counts as due so long before its usual pause is over
_BURST_S: Final = 0.5  # of bandwidth that may be used at once
_ENOUGH_FETCHED: Final = 64  # blocks, to judge by
_USEFUL: Final = 0.3  # share that must be used for likely blocks to be fetched further
_PROBE_EVERY: Final = 20  # looks, of which one fetches all the same


@dataclass(frozen=True, slots=True)
class PrefetchLimits:
    """`buffer_blocks` is the room of the buffer; no single look fetches more."""

    buffer_blocks: int
    blocks_per_s: float


@dataclass(frozen=True, slots=True)
class Effect:
    """Blocks that came into the buffer so far, and how often one was loaded from there."""

    num_fetched: int = 0
    num_used: int = 0

    @property
    def share(self) -> float | None:
        """Used of fetched; None before there is enough to judge by."""
        if self.num_fetched < _ENOUGH_FETCHED:
            return None
        return min(1.0, self.num_used / self.num_fetched)


class Prefetcher:
    """`buffer` is the index of the tier that is the buffer. Slower tiers follow it.

    `chain_of_waiting` are called when their turn comes; they tell the chain of a request, or None
    if it does not wait any more. `due_sessions(now_s, horizon_s)` are chains, the likeliest first.
    """

    def __init__(
        self,
        mode: PrefetchMode,
        buffer: int,
        limits: PrefetchLimits,
        due_sessions: Callable[[float, float], Iterable[Chain]],
    ) -> None:
        self.buffer = buffer
        self._mode = mode
        self._limits = limits
        self._due_sessions = due_sessions
        self._waiting: deque[Callable[[], Chain | None]] = deque(maxlen=256)
        self._pinned: list[BlockHash] = []
        self._tokens = limits.blocks_per_s * _BURST_S
        self._refilled_s: float | None = None
        self._looked_s = float("-inf")
        self._num_looks = 0

    @property
    def watches_sessions(self) -> bool:
        return self._mode in ("aggressive", "adaptive")

    @property
    def is_watching(self) -> bool:
        """Whether there may be something to fetch though no request comes."""
        return self.watches_sessions or bool(self._pinned)

    def expect(self, chain_of_waiting: Callable[[], Chain | None]) -> None:
        """A request has come."""
        self._waiting.append(chain_of_waiting)

    def want(self, chain: Chain) -> None:
        """A prefix that is wanted whoever comes, as far as the buffer has room for all such."""
        room = self._limits.buffer_blocks - len(self._pinned)
        self._pinned += list(chain)[: max(0, room)]

    def choose(
        self,
        now_s: float,
        index: TierIndex,
        is_on_device: Callable[[BlockHash], bool],
        effect: Effect,
    ) -> list[PromoteBlocks]:
        """What to fetch now, by the tier it comes from."""
        self._refill(now_s)
        if self._tokens < 1:
            return []
        room = min(int(self._tokens), self._limits.buffer_blocks)
        wanted: dict[BlockHash, int] = {}
        for key in self._pinned[:room]:
            tier = index.tier_of(key)
            if tier is not None and tier > self.buffer:
                wanted[key] = tier
        del self._pinned[:room]
        for chain in self._chains(now_s, effect):
            for key in chain:
                tier = index.tier_of(key)
                if tier is None:
                    if is_on_device(key):
                        continue
                    break  # the rest is of no use without it
                if tier > self.buffer and not is_on_device(key) and not index.is_promoting(key):
                    wanted.setdefault(key, tier)
                if len(wanted) >= room:
                    break
            if len(wanted) >= room:
                break
        self._tokens -= len(wanted)
        return [
            PromoteBlocks(source, self.buffer, tuple(k for k in wanted if wanted[k] == source))
            for source in sorted(set(wanted.values()))
        ]

    def _chains(self, now_s: float, effect: Effect) -> Iterator[Chain]:
        while self._waiting:
            chain = self._waiting.popleft()()
            if chain is not None:
                yield chain
        if self.watches_sessions and now_s - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now_s
            self._num_looks += 1
            if self._is_useful(effect):
                yield from self._due_sessions(now_s, _HORIZON_S)

    def _is_useful(self, effect: Effect) -> bool:
        if self._mode == "aggressive" or effect.share is None:
            return True
        return effect.share >= _USEFUL or self._num_looks % _PROBE_EVERY == 0

    def _refill(self, now_s: float) -> None:
        if self._refilled_s is not None:
            earned = (now_s - self._refilled_s) * self._limits.blocks_per_s
            most = max(1.0, self._limits.blocks_per_s * _BURST_S)
            self._tokens = min(most, self._tokens + earned)
        self._refilled_s = now_s
