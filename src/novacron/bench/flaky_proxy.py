"""A TCP proxy that does to its connections what networks and servers do on a bad day."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FAULTS: Final = ("delay", "cut", "half", "garbage", "hang")

_CHUNK: Final = 2**16


class FlakyProxy:
    """Listens on a free port and passes on to a Unix socket. `fault` is what may happen to an
    answer on its way, with a chance of `chance`; "none" and "refuse" (nobody is let in) are sure.

    delay: it comes late. cut: the connection ends instead. half: a part of it comes, then the
    connection ends. garbage: some of its bytes are others. hang: nothing comes any more.
    """

    def __init__(self, target: Path, seed: int) -> None:
        self.fault = "none"
        self.chance = 0.5
        self.delay_s = 0.2
        self.num_faults = 0
        self.num_answers = 0
        self._target = target
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def cut_all(self) -> None:
        """End all connections."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.fault == "refuse":
                self.num_faults += 1
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._target))
            with self._lock:
                self._open |= {client, server}
            for work, ends in ((self._ask, (client, server)), (self._answer, (server, client))):
                threading.Thread(target=self._run, args=(work, *ends), daemon=True).start()

    def _run(self, work: object, source: socket.socket, target: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                work(source, target)  # type: ignore[operator]
        finally:
            for one in (source, target):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            with self._lock:
                self._open.discard(source)
                source.close()  # the thread of the other direction closes the other

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        while data := client.recv(_CHUNK):
            server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(_CHUNK):
            with self._lock:
                self.num_answers += 1
                fault = self.fault if self._rng.random() < self.chance else "none"
                self.num_faults += fault in FAULTS
                cut_at = self._rng.randrange(len(data))
                noise = bytes(self._rng.randrange(256) for _ in range(4))
            if fault == "delay":
                time.sleep(self.delay_s)
            elif fault == "cut":
                return
            elif fault == "half":
                client.sendall(data[:cut_at])
                return
            elif fault == "garbage":
                data = data[:cut_at] + noise + data[cut_at + len(noise) :]
            elif fault == "hang":
                while server.recv(_CHUNK):
                    pass
                return
            client.sendall(data)


@contextlib.contextmanager
def flaky_proxy(target: Path, seed: int = 0) -> Iterator[FlakyProxy]:
    proxy = FlakyProxy(target, seed)
    try:
        yield proxy
    finally:
        proxy.close()
