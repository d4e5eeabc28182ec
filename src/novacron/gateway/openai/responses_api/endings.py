"""Waiting for the end of a response that somebody cancels, and that another connection reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from novacron.errors import RequestNotFound
from novacron.gateway.openai.responses_api.records import ResponseObject

_WITHIN_S: Final = 10.0


class Endings:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], asyncio.Future[ResponseObject]] = {}

    def tell(self, tenant: str, response: ResponseObject) -> None:
        """A response has come to an end of its own."""
        waiting = self._waiting.get((tenant, response.id))
        if waiting is not None and not waiting.done():
            waiting.set_result(response)

    async def after(
        self, cancel: Callable[[], Awaitable[int]], tenant: str, response_id: str
    ) -> ResponseObject | None:
        """How the response has ended that `cancel` ends; None, if it finds none that runs. Raises
        RequestNotFound if its reader left before it could be told."""
        key = tenant, response_id
        waiting = self._waiting.setdefault(key, asyncio.get_running_loop().create_future())
        try:
            if not await cancel():
                return None
            async with asyncio.timeout(_WITHIN_S):
                return await asyncio.shield(waiting)
        except TimeoutError:
            raise RequestNotFound(
                f"The response '{response_id}' was ended; its reader had gone, and nothing is kept."
            ) from None
        finally:
            self._waiting.pop(key, None)
