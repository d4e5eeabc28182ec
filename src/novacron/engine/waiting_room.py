"""WaitingRoom: where calls of a RecoveringClient wait for an engine, and for their turn on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from novacron.engine.client import EngineClient, EngineState
from novacron.engine.recovering_call import RecoveringCall
from novacron.engine.suspects import Suspects
from novacron.errors import EngineDead, NotReady, PoisonousRequest

_POLL_S: Final = 0.25  # for what no change of state tells: that a further variant is back

logger = logging.getLogger(__name__)


class WaitingRoom:
    """`timeout_s`: how long at a time one waits for an engine. For its turn it waits as long as it
    takes: each trial ends by some tokens, or by a death."""

    def __init__(self, client: EngineClient, suspects: Suspects, timeout_s: float) -> None:
        self._client = client
        self._suspects = suspects
        self._timeout_s = timeout_s
        self._news = asyncio.Event()
        self.num_requests = 0

    def tell(self) -> None:
        """Something has changed that somebody may wait for."""
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self, call: RecoveringCall) -> None:
        """Return when the call may be given to an engine, or something of it was aborted.

        Raises EngineDead if no engine comes in time, PoisonousRequest, and why there will be none.
        """
        num_requests = len(call.journal.num_tokens)
        self.num_requests += num_requests
        try:
            while not call.has_aborted:
                await self._wait_for_engine(call)
                if self._suspects.judge(call.name):
                    logger.error("a request is given up: two engines ended while they had only it")
                    raise PoisonousRequest
                if self._suspects.may_start(call.name):
                    return
                await self._wait_for_news(None)
        finally:
            self.num_requests -= num_requests

    async def _wait_for_engine(self, call: RecoveringCall) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while not call.has_aborted:
            state = self._state_of(call)
            if state is EngineState.READY:
                return
            if state is not EngineState.LOADING:
                await self._client.wait_ready()  # raises why, if it is the main variant
                raise call.failure or NotReady("The variant's engine has ended.")
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise EngineDead(
                    f"The engine has not come back within {self._timeout_s:g} s "
                    "(recovery_timeout). The request can be sent again."
                )
            await self._wait_for_news(min(left_s, _POLL_S))

    def _state_of(self, call: RecoveringCall) -> EngineState:
        """Of the engine, or engines, that may take the call."""
        if call.variant:
            for variant in self._client.variants[1:]:
                if variant.name == call.variant:
                    return variant.state
        return self._client.state

    async def _wait_for_news(self, timeout_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)
