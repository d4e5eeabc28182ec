"""OrdersUnderWay: what rank 0's own tiers were ordered and have not told the end of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from novacron.parallel.messages.links import LinkLost
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, BlockOrders

_LOOK_S: Final = 0.0005
_PATIENCE_S: Final = 30.0


class OrdersUnderWay:
    """True while there are some."""

    def __init__(self) -> None:
        self._keys: Counter[BlockHash] = Counter()
        self._loads: set[int] = set()
        self._lookups: set[int] = set()
        self._num_drops = 0

    def see_orders(self, orders: BlockOrders) -> None:
        self._keys.update(store.key for store in orders.stores)
        self._keys.update(key for one in orders.promotions for key in one.keys)
        self._loads.update(load.load_id for load in orders.loads)
        self._lookups.update(lookup.lookup_id for lookup in orders.lookups)
        self._num_drops += len(orders.dropped)

    def see_news(self, news: BlockNews) -> None:
        self._keys -= Counter((*news.settled, *news.promoted))
        self._loads.difference_update(loaded.load_id for loaded in news.loaded)
        self._lookups.difference_update(news.looked_up)
        self._num_drops -= news.num_drops

    def __bool__(self) -> bool:
        return bool(self._keys or self._loads or self._lookups or self._num_drops)

    def await_all(self, listen: Callable[[float], None]) -> None:
        """Where a host was lost: so that nothing is written to blocks that others are going to
        have. `listen` takes in news, for which it waits for up to so long. Raises LinkLost."""
        until_s = time.monotonic() + _PATIENCE_S
        while self and time.monotonic() < until_s:
            listen(_LOOK_S)
        if self:
            raise LinkLost("KV tiers on this host do not come to an end with what was ordered")
