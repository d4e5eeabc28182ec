"""HostedTiers: the KV tiers of a rank's part of all blocks, on its host, as the leader orders."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from typing import Final

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.executor.hosts.orders import (
    AskWhose,
    CloseTiers,
    FromRank,
    GiveUp,
    MoveBlocks,
    Moved,
    OfScope,
    OpenTiers,
    TiersClosed,
    TiersOpen,
    ToRank,
)
from novacron.executor.hosts.part_tiers import open_part, pin_file_of
from novacron.executor.own_rank import OwnRank
from novacron.executor.tiered_blocks import TieredBlocks
from novacron.kv_tiers.pin_file import PinFile
from novacron.kv_tiers.pins import PinnedPrefix
from novacron.records.block import BlockHash

_WHILE_LOADING_S: Final = 0.001  # a request waits for it
_WHILE_STORING_S: Final = 0.02
_LATEST_S: Final = 0.25  # for what tiers do by themselves

logger = logging.getLogger(__name__)


class HostedTiers:
    """None until the leader says so. `tell` reaches it."""

    def __init__(
        self,
        rank: OwnRank,
        model: ModelConfig,
        cache: CacheConfig,
        tell: Callable[[FromRank], None],
    ) -> None:
        self._rank, self._model, self._cache, self._tell = rank, model, cache, tell
        self._tiers: TieredBlocks | None = None
        self._pins = PinFile(None, b"")
        self._num_stores = self._num_loads = 0  # under way, loads and what is asked of servers

    @property
    def patience_s(self) -> float | None:
        """How soon there may be news; None: nothing is open."""
        if self._tiers is None:
            return None
        if self._num_loads:
            return _WHILE_LOADING_S
        return _WHILE_STORING_S if self._num_stores else _LATEST_S

    def follow(self, order: ToRank) -> bool:
        """Whether the order was for tiers. Raises ConfigError."""
        match order:
            case OpenTiers():
                self._tiers = open_part(self._rank, order, self._model, self._cache)
                has_disk = any(spec.kind == "disk" for spec in self._tiers.specs)
                self._pins = pin_file_of(
                    self._rank, order, self._model, self._cache, has_disk=has_disk
                )
                found = self._tiers.news(0.0)
                self._tell(TiersOpen(socket.gethostname(), self._tiers.specs, found))
            case MoveBlocks(orders):
                assert self._tiers is not None
                self._num_stores += len(orders.stores)
                self._num_loads += len(orders.loads) + len(orders.lookups)
                self._tiers.move(orders)
                if orders.pinned is not None:
                    self._write_pins(orders.pinned)
            case GiveUp(block_ids):
                assert self._tiers is not None
                self._tiers.give_up(block_ids)
            case AskWhose(scope):
                assert self._tiers is not None
                self._tell(_of_scope(self._tiers, scope))
            case CloseTiers():
                self.close()
                self._tell(TiersClosed())
            case _:
                return False
        return True

    def _write_pins(self, keys: Sequence[BlockHash]) -> None:
        pin = PinnedPrefix(name="", keys=tuple(keys), num_tokens=len(keys) * self._cache.block_size)
        try:
            self._pins.write([pin] if keys else [])
        except OSError as error:  # they are kept all the same, as long as this process lives
            logger.warning("What is pinned cannot be written down: %s.", error)

    def begin_step(self) -> None:
        if self._tiers is not None:
            self._tiers.begin_step(None)

    def end_step(self) -> None:
        if self._tiers is not None:
            self._tiers.end_step()

    def tell_news(self) -> None:
        news = None if self._tiers is None else self._tiers.news(0.0)
        if news is not None:
            self._num_stores -= len(news.settled)
            self._num_loads -= len(news.loaded) + len(news.looked_up)
            self._tell(Moved(news))

    def close(self) -> None:
        """What is still to be stored gets a moment. Harmless when called again."""
        if self._tiers is not None:
            self._tiers.close()
            self._tiers = None


def _of_scope(tiers: TieredBlocks, scope: bytes) -> OfScope:
    try:
        return OfScope(tuple(tiers.blocks_of(scope)))
    except OSError as error:
        return OfScope((), f"on {socket.gethostname()}: {error}")
