"""Coordination: this coordinator beside others, and how it starts and ends with the application."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from novacron.coordination.seat import Seat
from novacron.gateway.handover.handover import Handover, OpenedHandover


@dataclass(frozen=True, kw_only=True)
class Coordination:
    """The parts that stand outside the gateway. Made by cli/ from settings. `handover`: streams
    outlive their coordinators."""

    seat: Seat
    handover: OpenedHandover | None = None


class Together:
    """Belongs to one event loop."""

    def __init__(self, coordination: Coordination | None, handover: Handover | None) -> None:
        self._coordination = coordination
        self._handover = handover

    def start(self) -> None:
        if self._handover is not None:
            self._handover.start()
        if self._coordination is not None:
            self._coordination.seat.start()

    async def close(self) -> None:
        """First what has been told is put on record; then others may have what is left."""
        if self._handover is not None:
            await self._handover.close()
        if self._coordination is not None:
            await asyncio.to_thread(self._coordination.seat.close)
