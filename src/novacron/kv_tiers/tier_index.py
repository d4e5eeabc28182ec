"""TierIndex: which blocks lie in which tier, as far as the scheduler knows. No torch, no I/O.

What it says may be out of date: another process may have dropped a block. Whoever loads finds out,
and the index hears of it. Each tier keeps within its own size and tells what it dropped.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Final

from novacron.records.block import BlockHash
from novacron.records.block_moves import (
    NO_ORIGIN,
    BlockNews,
    BlockOrders,
    BlockOrigin,
    LoadBlocks,
    LookUp,
    PromoteBlocks,
    StoreBlock,
    TierKeys,
)

EVERYWHERE: Final = -1  # a bit for each tier that there may be
_MOST_KNOWN: Final = 2**18  # some 40 MB


class TierIndex:
    """For `num_tiers` tiers, fastest first. Collects orders until `take_orders`.

    Those in `shared` lose blocks without telling: of each the last `most_known` that it was seen to
    have are remembered. What a step has filled is not stored in the tier `buffer`, which gets
    blocks from others only.
    """

    def __init__(
        self,
        num_tiers: int,
        shared: Iterable[int] = (),
        *,
        buffer: int | None = None,
        most_known: int = _MOST_KNOWN,
    ) -> None:
        self._known: dict[int, dict[BlockHash, None]] = {tier: {} for tier in shared}
        self._most_known = most_known
        self._num_tiers = num_tiers
        self._all = (1 << num_tiers) - 1
        self._stored = self._all if buffer is None else self._all & ~(1 << buffer)
        self._tiers_of: dict[BlockHash, int] = {}  # a bit for each tier that has the block
        self._storing: set[BlockHash] = set()
        self._num_dropping = 0
        self._promoting: set[BlockHash] = set()
        self._promotions: list[PromoteBlocks] = []
        self.num_blocks = [0] * num_tiers

        self._stores: list[StoreBlock] = []
        self._loads: list[LoadBlocks] = []
        self._used: list[BlockHash] = []
        self._forgotten: list[BlockHash] = []
        self._dropped: list[TierKeys] = []
        self._kept: frozenset[BlockHash] = frozenset()
        self._pins_are_new = False
        self._parked: list[int] = []
        self._lookups: list[LookUp] = []
        self._given_up: list[int] = []

    @property
    def has_blocks(self) -> bool:
        return bool(self._tiers_of)

    @property
    def awaits_news(self) -> bool:
        """Whether something was ordered to be stored or dropped that nothing was heard of yet."""
        return bool(self._storing or self._promoting) or self._num_dropping > 0

    def tier_of(self, key: BlockHash, allowed: int = EVERYWHERE) -> int | None:
        """The fastest of the allowed tiers (a bit for each) that has the block."""
        bits = self._tiers_of.get(key, 0) & allowed
        return None if bits == 0 else (bits & -bits).bit_length() - 1

    def tiers_of(self, key: BlockHash) -> tuple[int, ...]:
        bits = self._tiers_of.get(key, 0)
        return tuple(tier for tier in range(self._num_tiers) if bits >> tier & 1)

    def wants(self, key: BlockHash, allowed: int = EVERYWHERE) -> bool:
        """Whether an allowed tier lacks the block that shall have it, and it is not on its way."""
        missing = self._stored & allowed & ~self._tiers_of.get(key, 0)
        return missing != 0 and key not in self._storing

    def offer(
        self,
        key: BlockHash,
        block_id: int,
        origin: BlockOrigin = NO_ORIGIN,
        allowed: int = EVERYWHERE,
    ) -> None:
        """A device block holds this now: store it where it may be, and is not yet."""
        if not self.wants(key, allowed):
            return
        missing = self._stored & allowed & ~self._tiers_of.get(key, 0)
        self._storing.add(key)
        tiers = tuple(tier for tier in range(self._num_tiers) if missing >> tier & 1)
        self._stores.append(StoreBlock(key, block_id, tiers, origin))

    def park(self, key: BlockHash, block_id: int) -> None:
        """The block was offered before, and is about to be taken from work that shall go on: if no
        tier has it, store it before it is written to."""
        if key not in self._tiers_of:
            self._parked.append(block_id)

    def is_storing(self, key: BlockHash) -> bool:
        """Whether the block was offered, and nothing was heard of it yet."""
        return key in self._storing

    def load(self, order: LoadBlocks) -> None:
        self._loads.append(order)

    def look_up(self, lookup: LookUp) -> None:
        self._lookups.append(lookup)

    def use(self, chain: Iterable[BlockHash]) -> None:
        """A request found the blocks of this prefix, in order. Those that others build upon shall
        be kept longest."""
        self._used.extend(reversed([key for key in chain if key in self._tiers_of]))

    def forget(self, keys: Iterable[BlockHash]) -> None:
        """These blocks may be the cause of a failure: drop them everywhere."""
        for key in keys:
            self._remove(key, self._all)
            self._forgotten.append(key)

    def is_promoting(self, key: BlockHash) -> bool:
        return key in self._promoting

    def promote(self, order: PromoteBlocks) -> None:
        self._promoting.update(order.keys)
        self._promotions.append(order)

    def keep(self, keys: frozenset[BlockHash]) -> None:
        """Tiers shall not drop these by themselves, and may drop all others."""
        self._pins_are_new |= keys != self._kept
        self._kept = keys

    def keys_except(self, tier: int, keep: Container[BlockHash]) -> list[BlockHash]:
        """What the tier has, some left out."""
        return [k for k, bits in self._tiers_of.items() if bits >> tier & 1 and k not in keep]

    def drop(self, tier: int, keys: Sequence[BlockHash]) -> None:
        """These shall go from one tier."""
        for key in keys:
            self._remove(key, 1 << tier)
        if keys:
            self._dropped.append(TierKeys(tier, tuple(keys)))
            self._num_dropping += 1

    def give_up(self, block_ids: Iterable[int]) -> None:
        """What these device blocks hold shall not be stored, if it was offered."""
        self._given_up.extend(block_ids)

    def lose_blocks(self) -> None:
        """No device block holds any more what it was offered with."""
        self._storing.difference_update(store.key for store in self._stores)
        self._stores.clear()
        self._parked.clear()

    def take_orders(self) -> BlockOrders | None:
        """What ranks shall do, given once; None if there is nothing."""
        collected = (
            self._stores, self._loads, self._used, self._forgotten, self._parked, self._lookups,
            self._dropped, self._promotions, self._given_up,
        )  # fmt: skip
        if not any(collected) and not self._pins_are_new:
            return None
        orders = BlockOrders(
            tuple(self._stores),
            tuple(self._loads),
            tuple(self._used),
            tuple(self._forgotten),
            tuple(self._parked),
            lookups=tuple(self._lookups),
            dropped=tuple(self._dropped),
            pinned=tuple(self._kept) if self._pins_are_new else None,
            promotions=tuple(self._promotions),
            given_up=tuple(self._given_up),
        )
        self._pins_are_new = False
        for orders_of_a_kind in collected:
            orders_of_a_kind.clear()
        return orders

    def see(self, news: BlockNews) -> None:
        for change in news.added:
            for key in change.keys:
                bits = self._tiers_of.get(key, 0)
                if not bits >> change.tier & 1:
                    self._tiers_of[key] = bits | 1 << change.tier
                    self.num_blocks[change.tier] += 1
                    if change.tier in self._known:
                        self._remember(key, change.tier)
        for change in news.removed:
            for key in change.keys:
                self._remove(key, 1 << change.tier)
        self._storing.difference_update(news.settled)
        self._num_dropping -= news.num_drops
        self._promoting.difference_update(news.promoted)

    def _remember(self, key: BlockHash, tier: int) -> None:
        known = self._known[tier]
        known[key] = None
        if len(known) > self._most_known:
            self._remove(next(iter(known)), 1 << tier)

    def check_integrity(self) -> None:
        """Recount the slow way. Raises AssertionError on a bug of ours."""
        for tier in range(self._num_tiers):
            held: Sequence[BlockHash] = [
                k for k, bits in self._tiers_of.items() if bits >> tier & 1
            ]
            assert len(held) == self.num_blocks[tier]
            assert tier not in self._known or self._known[tier].keys() == set(held)
        assert all(self._tiers_of.values()), "a block in no tier"

    def _remove(self, key: BlockHash, tiers: int) -> None:
        bits = self._tiers_of.get(key, 0)
        for tier in range(self._num_tiers):
            self.num_blocks[tier] -= (bits & tiers) >> tier & 1
        for tier, known in self._known.items():
            if tiers >> tier & 1:
                known.pop(key, None)
        left = bits & ~tiers
        if left:
            self._tiers_of[key] = left
        else:
            self._tiers_of.pop(key, None)
