"""FaultyLink: a network between two hosts that does what networks do on a bad day.

A TCP proxy on a free loopback port. `is_silent`: nothing passes either way, and no connection ends,
as behind a firewall that drops everything. `delay_s`: each piece takes so much longer.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

_PIECE: Final = 2**16
_POLL_S: Final = 0.01


class FaultyLink:
    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.is_silent = False
        self.delay_s = 0.0
        self.tap: Callable[[bytes], object] = lambda data: None  # sees what passes, both ways
        self._target = (host, port)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def redirect(self, port: int) -> None:
        """New connections go there."""
        self._target = (self._target[0], port)

    def cut(self) -> None:
        """End all connections; new ones are let in."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                if self._is_closed:
                    return
                client.close()
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                if self.delay_s:
                    time.sleep(self.delay_s)
                while self.is_silent and not self._is_closed:
                    time.sleep(_POLL_S)
                target.sendall(data)
                self.tap(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
            source.close()  # the thread of the other direction closes the other
