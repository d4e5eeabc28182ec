"""What the engine process hears and says: two ZeroMQ sockets of its client."""

from __future__ import annotations

import zmq

from novacron.engine.engine_arguments import EngineArguments
from novacron.records import wire


class Mailbox:
    """The process's two sockets."""

    def __init__(self, arguments: EngineArguments) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._inbox = context.socket(zmq.PULL)
        self._outbox = context.socket(zmq.PUSH)
        for socket, endpoint in (
            (self._inbox, arguments.inbox),
            (self._outbox, arguments.outbox),
        ):
            socket.set_hwm(0)
            socket.connect(endpoint)

    def send(self, message: wire.FromEngine) -> None:
        self._outbox.send(wire.encode(message))

    def receive(self, wait_ms: int | None) -> list[wire.ToEngine]:
        """All messages that are there; waits up to `wait_ms` (None: for ever) for the first."""
        messages: list[wire.ToEngine] = []
        if wait_ms != 0:
            self._inbox.poll(wait_ms)
        while int(self._inbox.get(zmq.EVENTS)) & zmq.POLLIN:
            messages.append(wire.decode_to_engine(self._inbox.recv(zmq.NOBLOCK)))
        return messages

    def close(self) -> None:
        """Wait for what was sent to leave, but not for ever."""
        self._inbox.close(linger=0)
        self._outbox.close(linger=1000)
        zmq.Context.instance().term()
