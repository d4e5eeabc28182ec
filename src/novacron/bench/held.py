"""HeldWatch: when this process did not run, because it was stopped or had no core. What happened
meanwhile was not seen, and counts for nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_TICK_S: Final = 0.05
_HELD_S: Final = 1.0


class HeldWatch:
    """`spans`: from, to, of time.perf_counter()."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    async def run(self) -> None:
        """For ever."""
        last_s = time.perf_counter()
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = time.perf_counter()
            if now_s - last_s > _HELD_S:
                self.spans.append((last_s, now_s))
            last_s = now_s
