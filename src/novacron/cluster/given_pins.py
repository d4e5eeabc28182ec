"""The pins that were given since the start, for replicas that were not there to hear of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from novacron.engine.client import EngineClient
from novacron.errors import NovaCronError
from novacron.records.cache_orders import CacheOrder, ClearCache, Pin, Unpin

logger = logging.getLogger(__name__)


class GivenPins:
    """`note` is called with every order that was followed."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._pins: dict[tuple[bytes, str], Pin] = {}

    def __len__(self) -> int:
        return len(self._pins)

    def note(self, order: CacheOrder) -> None:
        match order:
            case Pin():
                self._pins[order.scope, order.name] = order
            case Unpin():
                self._pins.pop((order.scope, order.name), None)
            case ClearCache(unpin=True, dry_run=False, scope=scope):
                self._pins = {
                    named: pin
                    for named, pin in self._pins.items()
                    if scope not in (None, pin.scope)
                }
            case _:
                pass

    async def teach(self, client: EngineClient) -> None:
        """Pin again, in the order in which it was done."""
        for pin in tuple(self._pins.values()):
            if pin.expires_s is not None and pin.expires_s <= self._now():
                continue
            try:
                await client.ask(pin)
            except NovaCronError as error:
                logger.warning("a replica cannot pin '%s' again: %s", pin.name, error)
