"""SocketReader: what arrives at a ZeroMQ socket, for an event loop.

Half the cost of zmq.asyncio, which makes a future and a timer for each message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import zmq


class SocketReader:
    """Reads one socket. It may be made before there is an event loop."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._arrived = asyncio.Event()
        self._stop_reading: Callable[[], object] = lambda: None
        self._is_closed = False

    async def messages(self) -> AsyncIterator[list[zmq.Frame]]:
        """Messages, with all their parts, until `close`."""
        loop = asyncio.get_running_loop()
        descriptor = self._socket.FD
        loop.add_reader(descriptor, self._arrived.set)
        self._stop_reading = lambda: loop.remove_reader(descriptor)
        while not self._is_closed:
            self._arrived.clear()
            while (message := self._receive()) is not None:
                yield message
            await self._arrived.wait()

    def _receive(self) -> list[zmq.Frame] | None:
        """The next message, if one is there. The descriptor speaks up again only once all have
        been taken."""
        if self._is_closed or not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            return None
        return self._socket.recv_multipart(zmq.NOBLOCK, copy=False)

    def nudge(self) -> None:
        """Look again: sending may have taken the descriptor's word that something has arrived."""
        self._arrived.set()

    def close(self) -> None:
        """To be called before the socket is closed, and its descriptor given to another."""
        self._is_closed = True
        self._stop_reading()
        self._stop_reading = lambda: None
        self._arrived.set()
