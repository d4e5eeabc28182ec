"""Lets the tokens of a fast model travel together.

A write to a connection costs about as much as all else that the API process does for a token, and
nobody sees a few milliseconds. So outputs that come within `interval_s` of the last delivery wait
for the rest of it, and go with those that come meanwhile. A request's first and last output never
wait, and take along whatever waits. A model whose steps take longer than the interval is not
affected at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from novacron.records.output import EngineOutput


class OutputPacer:
    """Between the engine's messages and `deliver`, in order. Belongs to one event loop."""

    def __init__(
        self, interval_s: float, deliver: Callable[[Sequence[EngineOutput]], None]
    ) -> None:
        self._interval_s = interval_s
        self._deliver = deliver
        self._waiting: list[EngineOutput] = []
        self._due: asyncio.TimerHandle | None = None
        self._delivered_s = float("-inf")

    def put(self, outputs: Sequence[EngineOutput]) -> None:
        self._waiting += outputs
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        due_s = self._delivered_s + self._interval_s
        if loop.time() >= due_s or any(map(_is_urgent, outputs)):
            self.flush()
        elif self._due is None:
            self._due = loop.call_at(due_s, self.flush)

    def flush(self) -> None:
        """Deliver what waits, now."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._waiting:
            outputs, self._waiting = self._waiting, []
            self._delivered_s = asyncio.get_running_loop().time()
            self._deliver(outputs)


def _is_urgent(output: EngineOutput) -> bool:
    return output.first_scheduled_time_s is not None or output.finish_reason is not None
