"""A streaming HTTP/1.1 client that costs little enough to measure with.

While a response streams it does nothing but note when bytes came; reading them is left for later
(transcript.py). One task and one connection per stream, connections kept alive and opened ahead of
time, so that a measured exchange starts with the writing of the request.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

from novacron.errors import ConfigError, NotReady

_USER_AGENT = "novacron-bench"
_MOST_IDLE_S = 2.0  # a server that closes idle connections may do so while the next call leaves


@dataclass
class Exchange:
    """One request and what came back, with times in seconds of time.perf_counter().

    `chunks` hold the body as it arrived. `error` is set if the connection broke.
    """

    started_s: float
    ended_s: float = 0.0
    status: int = 0
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    error: str | None = None

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.chunks)

    @property
    def ok(self) -> bool:
        return self.error is None and 200 <= self.status < 300


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time. Also the callback object of the parser."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._now_s = 0.0
        self._done: asyncio.Future[None] | None = None
        self._complete_head = False
        self._ends_with_connection = True
        self.usable = False
        self.idle_since_s = time.perf_counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own do not inherit from it
        self.usable = True

    async def exchange(self, data: bytes) -> Exchange:
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._complete_head, self._ends_with_connection = False, True
        self._done = done = asyncio.get_running_loop().create_future()
        self._exchange = Exchange(time.perf_counter())
        self._transport.write(data)
        try:
            await done
        except asyncio.CancelledError:
            self.close()
            raise
        return self._exchange

    def data_received(self, data: bytes) -> None:
        self._now_s = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"the server does not speak HTTP/1.1: {error}")
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._ends_with_connection = False

    def on_headers_complete(self) -> None:
        self._complete_head = True

    def on_body(self, body: bytes) -> None:
        self._exchange.chunks.append((self._now_s, body))

    def on_message_complete(self) -> None:
        self.usable = self.usable and bool(self._parser.should_keep_alive())
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._now_s = time.perf_counter()
        whole = self._complete_head and self._ends_with_connection and exc is None
        self._end(None if whole else f"the server closed the connection ({exc or 'no reason'})")

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def _end(self, error: str | None) -> None:
        if self._done is None or self._done.done():
            return
        self._exchange.status = self._parser.get_status_code()
        self._exchange.error = error
        self._exchange.ended_s = self._now_s
        self._done.set_result(None)


class HttpClient:
    """Exchanges with one server, as many at once as are asked for.

    `extra_header` is a line with its end. Raises ConfigError if `url` is no http(s) URL; NotReady
    if the server cannot be reached.
    """

    def __init__(self, url: str, api_key: str | None = None, *, extra_header: str = "") -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"'{url}' is not the URL of a server, such as http://127.0.0.1:8080.")
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        authorization = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._headers = (
            f"Host: {parts.netloc.rpartition('@')[2]}\r\nUser-Agent: {_USER_AGENT}\r\n"
            f"Accept: */*\r\n{authorization}{extra_header}"
        )
        self._idle: list[_Connection] = []

    async def get(self, path: str) -> Exchange:
        return await self._send(self._encode("GET", path, b""))

    async def post(self, path: str, body: bytes) -> Exchange:
        return await self._send(self._encode("POST", path, body))

    async def open_connections(self, count: int) -> None:
        """Have `count` connections ready, so that connecting is no part of what is timed."""
        self._idle = [connection for connection in self._idle if connection.usable]
        missing = max(0, count - len(self._idle))
        self._idle += await asyncio.gather(*(self._connect() for _ in range(missing)))

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _encode(self, method: str, path: str, body: bytes) -> bytes:
        content = "Content-Type: application/json\r\n" if body else ""
        head = (
            f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}{content}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _send(self, data: bytes) -> Exchange:
        connection = await self._take()
        exchange = await connection.exchange(data)
        if connection.usable:
            connection.idle_since_s = time.perf_counter()
            self._idle.append(connection)
        return exchange

    async def _take(self) -> _Connection:
        now_s = time.perf_counter()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now_s - connection.idle_since_s < _MOST_IDLE_S:
                return connection
            connection.close()
        return await self._connect()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                _Connection, self._host, self._port, ssl=self._tls
            )
        except OSError as error:
            raise NotReady(
                f"No server answers at {self._host}:{self._port}: {error}. Is it running?"
            ) from error
        return connection
