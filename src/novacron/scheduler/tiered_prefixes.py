"""TieredPrefixes: what the scheduler does about blocks below the device. Pure bookkeeping.

Stores: a block that a step has filled is offered to the tiers, and it is up to them when it is
copied. Loads: a waiting request whose prefix goes on in a tier gets device blocks reserved for it
and waits for these alone; then they are cached blocks like any other, and it starts from them. So
nothing here depends on who asked for a load, or on whether it is still there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import msgspec

from novacron.kv_cache.kv_cache_manager import KVCacheManager, PrefixHit
from novacron.kv_tiers.pins import PinLimits, Pins
from novacron.kv_tiers.tier_index import TierIndex
from novacron.records.block import BlockHash
from novacron.records.block_moves import (
    BlockNews,
    BlockOrders,
    BlockOrigin,
    LoadBlock,
    LoadBlocks,
    LoadedBlocks,
    LookUp,
    TierKeys,
    TierTotals,
)
from novacron.records.latency_counts import LatencyCounts
from novacron.records.output import EngineStats, TierSpec, TierStats
from novacron.scheduler.allowed_tiers import AllowedTiers
from novacron.scheduler.fetch_choice import AlwaysFetch, FetchChoice
from novacron.scheduler.fetch_or_compute import FREE
from novacron.scheduler.prefetch import Effect, Prefetcher
from novacron.scheduler.request_state import RequestState, RequestStatus

_FEWEST_LOOKED_UP: Final = 4  # blocks: fewer are computed sooner than asked for
_MOST_LOOKED_UP: Final = 2048


@dataclass(eq=False, slots=True)
class _Load:
    """Blocks on their way, and the requests that wait for them."""

    order: LoadBlocks
    ordered_s: float
    waiting: list[RequestState] = field(default_factory=list)


class TieredPrefixes:
    """Implements Tiers."""

    def __init__(
        self,
        kv_cache: KVCacheManager,
        tiers: Sequence[TierSpec],
        clock: Callable[[], float] = time.monotonic,
        choice: FetchChoice | None = None,
        pins: Pins | None = None,
        now: Callable[[], float] = time.time,
        prefetcher: Prefetcher | None = None,
    ) -> None:
        self._shared = tuple(tier for tier, spec in enumerate(tiers) if spec.is_shared)
        buffer = None if prefetcher is None else prefetcher.buffer
        self.index = TierIndex(len(tiers), self._shared, buffer=buffer)
        self._prefetcher = prefetcher
        self._kv_cache = kv_cache
        self._specs = tuple(tiers)
        self._allowed = AllowedTiers(tiers)
        self._clock = clock
        self._choice = choice or AlwaysFetch()
        self.begin_step, self.end_step = self._choice.begin_step, self._choice.end_step
        self._now = now
        self.pins = Pins(PinLimits(0, 0)) if pins is None else pins
        self.tell_pins()
        self._loads: dict[int, _Load] = {}
        self._load_of: dict[BlockHash, _Load] = {}
        self._num_loads = 0
        self._lookups: dict[int, RequestState] = {}  # and the requests that wait for them
        self._num_lookups = 0
        self._loading: dict[str, float] = {}  # requests, and since when

        self._totals: tuple[TierTotals, ...] = (TierTotals(),) * len(tiers)
        self._hit_tokens = [0] * len(tiers)
        self._num_stores_dropped = 0
        self._num_waits = self._num_recomputed_instead = 0
        self._wait_s = self._lookup_s = 0.0
        self._lookup_times = LatencyCounts()

    @property
    def public_keys(self) -> frozenset[BlockHash]:
        return self.pins.public_keys

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(spec.kind for spec in self._specs)

    @property
    def awaits_news(self) -> bool:
        watches = self._prefetcher is not None and self._prefetcher.is_watching
        return watches or self.index.awaits_news

    def tell_pins(self) -> None:
        """Have the tiers keep what is pinned now, and nothing else."""
        self.index.keep(self.pins.keys)

    def num_stored(self, keys: Sequence[BlockHash]) -> dict[str, int]:
        """How many of these blocks each tier has, by its kind."""
        tiers = [tier for key in keys for tier in self.index.tiers_of(key)]
        return {spec.kind: tiers.count(tier) for tier, spec in enumerate(self._specs)}

    def keys_except(
        self,
        kinds: Sequence[str],
        keep: Container[BlockHash],
        owned: Sequence[TierKeys] | None = None,
        torn: Sequence[TierKeys] = (),
    ) -> list[TierKeys]:
        """What tiers of these kinds have, some left out, and what is `torn`. With `owned` only
        that, and of its blocks also those that are known to lie elsewhere."""
        of_tier = [
            list(self.index.keys_except(tier, keep)) if owned is None else []
            for tier in range(len(self._specs))
        ]
        if owned is not None:
            told = {(one.tier, key) for one in owned for key in one.keys}
            known = {(t, key) for _, key in told for t in self.index.tiers_of(key)}
            for tier, key in sorted(told | known):
                if key not in keep:
                    of_tier[tier].append(key)
        for one in torn:
            of_tier[one.tier] += [key for key in one.keys if key not in keep]
        return [
            TierKeys(tier, tuple(keys))
            for tier, keys in enumerate(of_tier)
            if self._specs[tier].kind in kinds
        ]

    def count(self, blocks: Sequence[TierKeys]) -> dict[str, int]:
        """How many, by kind of tier."""
        return {self._specs[one.tier].kind: len(one.keys) for one in blocks}

    def drop(self, blocks: Sequence[TierKeys]) -> None:
        """A load that is on its way finds nothing, or ends."""
        for one in blocks:
            self.index.drop(one.tier, one.keys)

    def expect(self, state: RequestState) -> None:
        if self._prefetcher is not None:
            self._prefetcher.expect(lambda: self._chain_of_waiting(state))

    def _chain_of_waiting(self, state: RequestState) -> list[BlockHash] | None:
        if state.status is not RequestStatus.WAITING or state.needs_whole_prompt:
            return None
        return self._kv_cache.chain(state.blocks, state.token_ids)

    def _prefetch(self, prefetcher: Prefetcher) -> None:
        buffer = prefetcher.buffer
        effect = Effect(
            self._totals[buffer].num_stored, self._hit_tokens[buffer] // self._kv_cache.block_size
        )
        is_on_device = self._kv_cache.is_cached
        for order in prefetcher.choose(self._clock(), self.index, is_on_device, effect):
            self.index.promote(order)

    def begin_load(self, state: RequestState, hit: PrefixHit, num_spare_blocks: int) -> list[int]:
        if state.has_loaded or not (self.index.has_blocks or self._shared):
            return []
        started_s = self._clock()
        chain, unknown = self._chain(state, hit)
        if self._begins_to_look_up(state, unknown, started_s):
            return []
        num_more_tokens = len(state.token_ids) - hit.num_tokens
        num_more_tokens -= len(chain) * self._kv_cache.block_size
        cut = self._choice.cut([tier for _, tier in chain], num_more_tokens)
        missing = [(key, tier) for key, tier in chain[:cut] if tier is not None]
        joined = self._loads_of(key for key, _ in chain[:cut])
        self._see_lookup(self._clock() - started_s)
        waits = bool(missing or joined)
        if waits and not self._kv_cache.has_room(len(state.token_ids), hit, num_spare_blocks):
            return []
        if any(tier is not None for _, tier in chain[cut:]):
            self._num_recomputed_instead += 1
            state.has_loaded = True  # else the next step would ask again
        if not waits:
            return []
        self._kv_cache.adopt(state.blocks, hit)  # so that nobody evicts it meanwhile
        block_ids = self._kv_cache.reserve(len(missing))
        if missing:
            joined.append(self._order(missing, block_ids))
        for load in joined:
            load.waiting.append(state)
        state.loads_in_flight = len(joined)
        state.status = RequestStatus.LOADING
        self._loading[state.request.request_id] = started_s
        return block_ids

    def _chain(
        self, state: RequestState, hit: PrefixHit
    ) -> tuple[list[tuple[BlockHash, int | None]], list[BlockHash]]:
        """The blocks that go on from the hit, with their tiers (FREE: the device has it or will),
        and those after them that shared tiers are to be asked for."""
        chain: list[tuple[BlockHash, int | None]] = []
        keys = self._kv_cache.missing_keys(state.blocks, state.token_ids, hit)
        allowed = self._allowed.of(state.request.regions)
        for key in keys:
            is_free = key in self._load_of or self._kv_cache.is_cached(key)
            tier = FREE if is_free else self.index.tier_of(key, allowed)
            if tier is None and not is_free:
                if self._shared and not state.has_looked_up:
                    return chain, [key, *islice(keys, _MOST_LOOKED_UP - 1)]
                break
            chain.append((key, tier))
        return chain, []

    def _see_lookup(self, seconds: float) -> None:
        self._lookup_s += seconds
        self._lookup_times += LatencyCounts.of(seconds)

    def _loads_of(self, keys: Iterable[BlockHash]) -> list[_Load]:
        """The loads that bring some of these already."""
        loads = (self._load_of[key] for key in keys if key in self._load_of)
        return list({load.order.load_id: load for load in loads}.values())

    def _begins_to_look_up(
        self, state: RequestState, unknown: Sequence[BlockHash], now_s: float
    ) -> bool:
        """Whether shared tiers are asked for these first: once for each request, which waits."""
        if len(unknown) < _FEWEST_LOOKED_UP:
            return False
        shared = self._allowed.only(self._shared, state.request.regions)
        if not shared:
            return False
        for tier in shared:
            self.index.look_up(LookUp(self._num_lookups, tier, tuple(unknown)))
            self._lookups[self._num_lookups] = state
            self._num_lookups += 1
        state.loads_in_flight, state.has_looked_up = len(shared), True
        state.status = RequestStatus.LOADING
        self._loading[state.request.request_id] = now_s
        return True

    def _order(self, missing: Sequence[tuple[BlockHash, int]], block_ids: Sequence[int]) -> _Load:
        blocks = tuple(
            LoadBlock(key, block_id, tier)
            for (key, tier), block_id in zip(missing, block_ids, strict=True)
        )
        load = _Load(LoadBlocks(self._num_loads, blocks), self._clock())
        self._num_loads += 1
        self._loads[load.order.load_id] = load
        self._load_of |= dict.fromkeys((key for key, _ in missing), load)
        self.index.load(load.order)
        return load

    def offer(self, state: RequestState) -> None:
        num_full = state.num_computed_tokens // self._kv_cache.block_size
        if num_full <= state.num_offered_blocks:
            return
        table = state.blocks
        num_full = min(num_full, table.num_settled)
        allowed = self._allowed.of(state.request.regions)
        for place in range(state.num_offered_blocks, num_full):
            key = table.hashes[place]
            if not self.index.wants(key, allowed):
                continue
            scope = state.request.cache_scope if place >= table.num_public else b""
            parent = table.hashes[place - 1] if place else None
            origin = BlockOrigin(parent, place, state.request.session, scope)
            self.index.offer(key, table.block_ids[place], origin, allowed)
        state.num_offered_blocks = num_full

    def park(self, state: RequestState) -> None:
        table = state.blocks
        for place in range(state.num_offered_blocks):
            self.index.park(table.hashes[place], table.block_ids[place])

    def use(self, state: RequestState) -> None:
        self._loading.pop(state.request.request_id, None)
        num_found = state.num_cached_tokens // self._kv_cache.block_size
        self._save_found(state, min(num_found, state.num_offered_blocks))
        self.index.use(state.blocks.hashes[: min(num_found, state.num_offered_blocks)])
        state.num_offered_blocks = 0

    def _save_found(self, state: RequestState, count: int) -> None:
        """Blocks that a request found on the device, and that no tier has yet, are worth a copy
        when their places are needed: who is found once is found again."""
        table = state.blocks
        for place in range(count):
            if self.index.is_storing(table.hashes[place]):
                self.index.park(table.hashes[place], table.block_ids[place])

    def forget(self, state: RequestState) -> None:
        self.index.forget(state.blocks.hashes)

    def lose_blocks(self) -> None:
        self.index.lose_blocks()

    def see(self, news: BlockNews) -> list[RequestState]:
        self.index.see(news)
        if news.totals:
            self._totals, self._num_stores_dropped = news.totals, news.num_stores_dropped
        ready = [state for loaded in news.loaded for state in self._end(loaded)]
        ready += [state for lookup_id in news.looked_up for state in self._end_lookup(lookup_id)]
        return sorted(ready, key=lambda state: state.arrival_index, reverse=True)

    def _end(self, loaded: LoadedBlocks) -> list[RequestState]:
        """Let what has come be found, and the requests go on that wait for nothing else."""
        load = self._loads.pop(loaded.load_id)
        self._see_time_of(load)
        is_new = any(state.first_scheduled_time_s is None for state in load.waiting)
        keys: list[BlockHash | None] = []
        for block, ok in zip(load.order.blocks, loaded.ok, strict=True):
            del self._load_of[block.key]
            keys.append(block.key if ok else None)
            # What comes back for work that was interrupted is no part of a prompt found.
            self._hit_tokens[block.tier] += self._kv_cache.block_size * (ok and is_new)
        self._kv_cache.release_filled([block.block_id for block in load.order.blocks], keys)
        ready = []
        for state in load.waiting:
            state.loads_in_flight -= 1
            if state.loads_in_flight > 0 or state.status is not RequestStatus.LOADING:
                continue
            self._kv_cache.free(state.blocks)
            state.status, state.has_loaded = RequestStatus.WAITING, True
            self._num_waits += 1
            self._wait_s += self._clock() - self._loading.pop(state.request.request_id)
            ready.append(state)
        return ready

    def _see_time_of(self, load: _Load) -> None:
        tiers = {block.tier for block in load.order.blocks}
        if len(tiers) == 1:  # else nobody knows which took how long
            seconds = self._clock() - load.ordered_s
            self._choice.see_load(tiers.pop(), len(load.order.blocks), seconds)

    def _end_lookup(self, lookup_id: int) -> list[RequestState]:
        """Let the request go on that waits for nothing else: it will find what there is."""
        state = self._lookups.pop(lookup_id)
        state.loads_in_flight -= 1
        if state.loads_in_flight > 0 or state.status is not RequestStatus.LOADING:
            return []
        state.status = RequestStatus.WAITING
        self._num_waits += 1
        self._wait_s += self._clock() - self._loading.pop(state.request.request_id)
        return [state]

    def take_orders(self) -> BlockOrders | None:
        if self.pins and self.pins.expire(self._now()):
            self.tell_pins()
        if self._prefetcher is not None:
            self._prefetch(self._prefetcher)
        return self.index.take_orders()

    def add_to(self, stats: EngineStats) -> EngineStats:
        tiers = tuple(
            TierStats(
                kind=spec.kind,
                capacity_bytes=spec.capacity_bytes,
                used_bytes=totals.used_bytes,
                num_blocks=num_blocks,
                hit_tokens=hit_tokens,
                num_stored=totals.num_stored,
                num_parked=totals.num_parked,
                num_demoted=totals.num_demoted,
                num_warmed=totals.num_warmed,
                num_warm_used=totals.num_warm_used,
                pressure=totals.pressure,
                num_loaded=totals.num_loaded,
                num_missing=totals.num_missing,
                num_mismatches=totals.num_mismatches,
                num_errors=totals.num_errors,
                num_evicted=totals.num_evicted,
                num_regretted=totals.num_regretted,
                loaded_bytes=totals.loaded_bytes,
                load_s=totals.load_s,
                stored_bytes=totals.stored_bytes,
                store_s=totals.store_s,
                lookups=totals.lookups,
                loads=totals.loads,
                stores=totals.stores,
                load_breaker=totals.load_breaker,
                store_breaker=totals.store_breaker,
                codec=totals.codec,
            )
            for spec, totals, num_blocks, hit_tokens in zip(
                self._specs, self._totals, self.index.num_blocks, self._hit_tokens, strict=True
            )
        )
        return msgspec.structs.replace(
            stats,
            kv_tiers=tiers,
            num_loading=len(self._loading),
            num_tier_stores_dropped=self._num_stores_dropped,
            num_tier_waits=self._num_waits,
            num_pinned_blocks=len(self.pins.keys),
            num_recomputed_instead=self._num_recomputed_instead,
            tier_wait_s=self._wait_s,
            tier_lookup_s=self._lookup_s,
            tier_lookups=self._lookup_times,
        )
