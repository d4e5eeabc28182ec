"""Who may open a link to this process: ZeroMQ asks for every handshake, by its protocol ZAP
(https://rfc.zeromq.org/spec/27), and is told here. Everything not allowed is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

import zmq

_ENDPOINT: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
DOMAIN: Final = b"novacron"


class AccessControl:
    """Answers for all sockets of `context` that listen in DOMAIN, until the context ends. To be
    made before they are bound."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: Iterable[str]) -> None:
        self._allowed = frozenset(bytes.fromhex(key) for key in allowed)
        socket = context.socket(zmq.REP)
        socket.linger = 0
        socket.bind(_ENDPOINT)
        threading.Thread(target=self._run, args=(socket,), daemon=True, name="access").start()

    def admit(self, key: str) -> None:
        """Allow this public key, too."""
        self._allowed |= {bytes.fromhex(key)}

    def _run(self, socket: zmq.Socket[bytes]) -> None:
        try:
            while True:
                socket.send_multipart(self._answer(socket.recv_multipart()))
        except zmq.ContextTerminated:
            socket.close()

    def _answer(self, question: list[bytes]) -> list[bytes]:
        version, request_id, _domain, _address, _identity, mechanism, *credentials = question
        key = credentials[0] if mechanism == b"CURVE" and credentials else b""
        is_allowed = version == _VERSION and key in self._allowed
        verdict = [b"200", b"OK"] if is_allowed else [b"400", b"this key is not allowed"]
        return [_VERSION, request_id, *verdict, key.hex().encode(), b""]
