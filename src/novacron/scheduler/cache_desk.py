"""CacheDesk: answers what callers ask of the KV cache itself: pins, and clearing it.

The engine calls it between steps. It decides and keeps the books; what tiers shall do about it goes
to them with the next orders, and `write_pins` keeps pins beyond the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from novacron.errors import InvalidRequest, NovaCronError, Unsupported
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.kv_tiers.pins import PinnedPrefix
from novacron.records.block import BlockHash
from novacron.records.block_moves import TierKeys
from novacron.records.cache_orders import (
    CacheAnswer,
    CacheOrder,
    ClearCache,
    ClearedCache,
    ListPins,
    Pin,
    PinInfo,
    PinList,
    Refused,
    Unpin,
)
from novacron.scheduler.sessions import Sessions
from novacron.scheduler.tiered_prefixes import TieredPrefixes

_DEVICE = "device"


class CacheDesk:
    """`tiers` is None where the device is all there is; then nothing can be pinned. `now` is Unix
    time. `block_bytes`: what a block takes in a tier. `blocks_of` tells what tiers have of a scope,
    and raises OSError if one of them cannot; `torn_blocks` what lies there in parts only."""

    def __init__(
        self,
        kv_cache: KVCacheManager,
        tiers: TieredPrefixes | None,
        sessions: Sessions,
        *,
        block_bytes: int = 0,
        write_pins: Callable[[Sequence[PinnedPrefix]], None] = lambda pins: None,
        blocks_of: Callable[[bytes], Sequence[TierKeys]] = lambda scope: (),
        torn_blocks: Callable[[], Sequence[TierKeys]] = tuple,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._kv_cache = kv_cache
        self._tiers = tiers
        self._sessions = sessions
        self._block_bytes = block_bytes
        self._write_pins = write_pins
        self._blocks_of = blocks_of
        self._torn_blocks = torn_blocks
        self._now = now

    def answer(self, order: CacheOrder) -> CacheAnswer:
        """Do what is asked. What cannot be done is refused; nothing has changed then."""
        try:
            match order:
                case Pin():
                    return self._pin(order)
                case Unpin(name, scope):
                    return self._unpin(name, scope)
                case ListPins(scope):
                    return self._list(scope)
                case ClearCache():
                    return self._clear(order)
        except NovaCronError as error:
            return Refused(type(error).__name__, str(error))

    def _pin(self, order: Pin) -> PinList:
        tiers = self._require_tiers()
        public_keys = frozenset() if order.is_public else tiers.public_keys
        table = self._kv_cache.open_table(order.salt, order.token_ids, public_keys)
        keys = tuple(self._kv_cache.chain(table, order.token_ids))
        if not keys:
            raise InvalidRequest(
                f"The prefix has {len(order.token_ids)} tokens, but blocks of "
                f"{self._kv_cache.block_size} are kept. Pin at least so many."
            )
        pin = PinnedPrefix(
            name=order.name,
            scope=order.scope,
            is_public=order.is_public,
            keys=keys,
            num_tokens=len(keys) * self._kv_cache.block_size,
            expires_s=order.expires_s,
        )
        tiers.pins.expire(self._now())
        tiers.pins.add(pin)
        self._keep(tiers)
        return self._list_of(tiers, (pin,))

    def _unpin(self, name: str, scope: bytes) -> PinList:
        tiers = self._require_tiers()
        tiers.pins.expire(self._now())
        tiers.pins.remove(scope, name)
        self._keep(tiers)
        return self._list_of(tiers, tiers.pins.visible_to(scope))

    def _list(self, scope: bytes) -> PinList:
        if self._tiers is None:
            return PinList((), 0, 0, self._block_bytes)
        if self._tiers.pins.expire(self._now()):
            self._keep(self._tiers)
        return self._list_of(self._tiers, self._tiers.pins.visible_to(scope))

    def _clear(self, order: ClearCache) -> ClearedCache:
        kinds = [_DEVICE, *(self._tiers.kinds if self._tiers else ())]
        unknown = set(order.levels) - set(kinds)
        if unknown:
            raise InvalidRequest(
                f"There is no level {min(unknown)!r} of the cache. There are {', '.join(kinds)}."
            )
        wanted = order.levels or tuple(kinds)
        keep: frozenset[BlockHash] = frozenset()
        if self._tiers is not None and not order.unpin:
            keep = self._tiers.pins.keys
        owned = None if order.scope is None else self._owned(order.scope)
        keys = frozenset(key for one in owned or () for key in one.keys)
        cleared: dict[str, int] = {}
        on_device: list[int] = []
        in_tiers: list[TierKeys] = []
        if _DEVICE in wanted:
            on_device = self._kv_cache.known_blocks(keep, order.scope, keys)
            cleared[_DEVICE] = len(on_device)
        if self._tiers is not None:
            torn = self._torn_blocks() if order.scope is None else ()
            in_tiers = self._tiers.keys_except(wanted, keep, owned, torn)
            cleared |= self._tiers.count(in_tiers)
        if not order.dry_run:
            self._do_clear(order, on_device, in_tiers)
        return ClearedCache(cleared)

    def _owned(self, scope: bytes) -> Sequence[TierKeys]:
        """What tiers have of a scope."""
        try:
            return self._blocks_of(scope)
        except OSError as error:
            raise NovaCronError(
                f"Nothing was cleared: a tier cannot tell whose blocks it has ({error}). Try again "
                "when it works."
            ) from error

    def _do_clear(
        self, order: ClearCache, on_device: Sequence[int], in_tiers: Sequence[TierKeys]
    ) -> None:
        if self._tiers is not None:
            if order.unpin:
                self._tiers.pins.clear(order.scope)
                self._keep(self._tiers)
            self._tiers.drop(in_tiers)
            if not order.levels:  # else what waits for a tier is still wanted there
                self._tiers.index.give_up(on_device)
        self._kv_cache.forget_blocks(on_device)
        if order.scope is None and _DEVICE in (order.levels or (_DEVICE,)):
            self._sessions.clear()

    def _require_tiers(self) -> TieredPrefixes:
        if self._tiers is None:
            raise Unsupported(
                "Nothing can be pinned: this server has no KV tier below the device. Start it with "
                "enable_prefix_caching, and kv_ram_size or kv_disk_size above 0."
            )
        return self._tiers

    def _keep(self, tiers: TieredPrefixes) -> None:
        """Tell the tiers, and write down for the next start, what is pinned now."""
        tiers.tell_pins()
        try:
            self._write_pins(tiers.pins.all)
        except OSError as error:
            raise NovaCronError(
                f"The pins could not be written down, and end with the server: {error}."
            ) from error

    def _list_of(self, tiers: TieredPrefixes, pins: Sequence[PinnedPrefix]) -> PinList:
        return PinList(
            tuple(
                PinInfo(
                    name=pin.name,
                    is_public=pin.is_public,
                    num_tokens=pin.num_tokens,
                    num_blocks=len(pin.keys),
                    expires_s=pin.expires_s,
                    stored_blocks=tiers.num_stored(pin.keys),
                )
                for pin in pins
            ),
            num_blocks=len(tiers.pins.keys),
            most_blocks=tiers.pins.limits.most_blocks,
            block_bytes=self._block_bytes,
        )
