"""Peers: streams read from the coordinator that runs them, on behalf of a client.

The client's own credential goes along, so that the other one decides for itself what he may read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Final, TypeVar

import httpx2
import msgspec

from novacron.errors import NotReady, RequestFailed, StreamMoved
from novacron.gateway.handover.forwarding import FORWARDED, Credentials, PeerLost
from novacron.gateway.openai.responses import ErrorDetail
from novacron.gateway.replay import Event

T = TypeVar("T")

_CONNECT_TIMEOUT_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.2
_NOTHING_MORE: Final = 204
_UNKNOWN: Final = 404
_MOVED: Final = "stream_moved"


class _Told(msgspec.Struct):
    """The part of an event that matters here."""

    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class Peers:
    """Connections to other coordinators. `is_alive` tells whether one is, by its signs of life: a
    process that is stopped still has its connections."""

    def __init__(self, is_alive: Callable[[str], bool]) -> None:
        self._is_alive = is_alive
        timeout = httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S)
        self._http = httpx2.AsyncClient(timeout=timeout, follow_redirects=False)

    async def close(self) -> None:
        await self._http.aclose()

    async def open(
        self,
        member_id: str,
        address: str,
        request_id: str,
        start: int,
        credentials: Credentials,
    ) -> AsyncGenerator[Event, None] | None:
        """The events from `start` on; None: there are no more. Raises PeerLost, also while it is
        read; StreamMoved; and NotReady if the other one does not let us."""
        url = f"{address}/api/v1/llm/stream/{request_id}?from={start}"
        request = self._http.build_request(
            "GET", url, headers={**credentials, FORWARDED: "1", "accept": "text/event-stream"}
        )
        response = await self._alive(member_id, self._http.send(request, stream=True))
        if response.status_code == 200:
            return self._events(member_id, response)
        await response.aclose()
        if response.status_code == _NOTHING_MORE:
            return None
        if response.status_code == _UNKNOWN:
            raise PeerLost(f"{address} does not know the stream")
        raise NotReady(
            f"The server that runs this stream refuses to hand it out (HTTP "
            f"{response.status_code}). Do all servers with this database have the same settings?"
        )

    async def cancel(
        self, member_id: str, address: str, request_id: str, credentials: Credentials
    ) -> bool:
        """False if it does not run there (any more). Raises PeerLost."""
        url = f"{address}/api/v1/llm/requests/{request_id}"
        request = self._http.build_request("DELETE", url, headers={**credentials, FORWARDED: "1"})
        response = await self._alive(member_id, self._http.send(request))
        return response.status_code == 200

    async def _events(
        self, member_id: str, response: httpx2.Response
    ) -> AsyncGenerator[Event, None]:
        lines = response.aiter_lines()
        number: int | None = None
        try:
            while True:
                line = await self._alive(member_id, _next(lines))
                if line is None:
                    return
                if line.startswith("id: "):
                    number = int(line.removeprefix("id: "))
                elif line.startswith("data: "):
                    data = line.removeprefix("data: ").encode()
                    if number is not None:
                        yield Event(number, data)
                        number = None
                    else:
                        _raise_if_error(data)
        finally:
            await response.aclose()

    async def _alive(self, member_id: str, work: Coroutine[None, None, T]) -> T:
        """The result of `work`, unless the other one ends meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_EVERY_S))[0]:
                if not self._is_alive(member_id):
                    raise PeerLost(f"{member_id} is silent")
            return task.result()
        except httpx2.HTTPError as error:
            raise PeerLost(str(error) or type(error).__name__) from error
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, httpx2.HTTPError):
                    await task


async def _next(lines: AsyncIterator[str]) -> str | None:
    return await anext(lines, None)


def _raise_if_error(data: bytes) -> None:
    """Signs of life are skipped; an error that is no part of the stream ends our reading."""
    told = msgspec.json.decode(data, type=_Told)
    if told.type != "error":
        return
    detail = msgspec.json.decode(told.data, type=ErrorDetail)
    if detail.code == _MOVED:
        raise StreamMoved
    raise RequestFailed(detail.message)
