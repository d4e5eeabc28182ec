"""Promoter: copies blocks from a slow tier into a faster one before anybody asks for them.

Has a thread of its own, so that a request's own load never waits behind a guess. What does not
check is not copied; whoever loads it finds out and drops it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from novacron.kv_tiers.record import is_sound
from novacron.kv_tiers.tier import KVTier, Record
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockNews, PromoteBlocks, TierKeys

logger = logging.getLogger(__name__)

_BLOCKS_AT_ONCE: Final = 8


class Promoter:
    """`tell` gets the news, and how many bytes went into which tier; from the promoter's thread.
    While `is_held` nothing is copied."""

    def __init__(
        self,
        tiers: Sequence[KVTier],
        identity: bytes,
        record_bytes: int,
        tell: Callable[[BlockNews, int, int], None],
        is_held: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tiers = tiers
        self._identity = identity
        self._record_bytes = record_bytes
        self._tell = tell
        self._is_held = is_held
        self._orders: deque[PromoteBlocks] = deque()
        self._has_orders = threading.Condition()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def order(self, orders: Iterable[PromoteBlocks]) -> None:
        """Does not wait. The thread starts with the first order."""
        with self._has_orders:
            self._orders.extend(orders)
            if self._orders and self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="prefetch-blocks", daemon=True
                )
                self._thread.start()
            self._has_orders.notify()

    def close(self, patience_s: float) -> None:
        """What still waits is left undone."""
        with self._has_orders:
            self._is_closing = True
            self._has_orders.notify()
        if self._thread is not None:
            self._thread.join(patience_s)

    def _run(self) -> None:
        buffers = [np.empty(self._record_bytes, np.uint8) for _ in range(_BLOCKS_AT_ONCE)]
        while True:
            with self._has_orders:
                while not self._orders and not self._is_closing:
                    self._has_orders.wait()
                if self._is_closing:
                    return
                order = self._orders.popleft()
            for start in range(0, len(order.keys), _BLOCKS_AT_ONCE):
                if self._is_closing:
                    return
                self._promote(order, order.keys[start : start + _BLOCKS_AT_ONCE], buffers)

    def _promote(
        self,
        order: PromoteBlocks,
        keys: Sequence[BlockHash],
        buffers: Sequence[np.ndarray[tuple[int], np.dtype[np.uint8]]],
    ) -> None:
        news, num_stored = BlockNews(promoted=tuple(keys)), 0
        if self._is_held():
            self._tell(news, order.target, 0)
            return
        try:
            found = self._tiers[order.source].get(list(keys), buffers[: len(keys)])
            records = [
                Record(key, buffer)
                for key, is_there, buffer in zip(keys, found, buffers, strict=False)
                if is_there and is_sound(buffer, self._identity, key)
            ]
            put = self._tiers[order.target].put(records)
            num_stored = len(put.stored)
            news = BlockNews(
                added=(TierKeys(order.target, put.stored),),
                removed=(TierKeys(order.target, put.dropped),),
                promoted=tuple(keys),
            )
        except Exception:  # requests can do without
            logger.exception("Blocks could not be prefetched.")
        self._tell(news, order.target, num_stored)
