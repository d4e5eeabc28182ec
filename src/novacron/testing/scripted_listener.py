"""ScriptedListener: a rank's ear whose messages a test writes. Implements TensorListener."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from novacron.executor.hosts.orders import FromRank, ToRank, encode, from_rank
from novacron.parallel.messages.links import LinkLost, Received
from novacron.parallel.messages.tensor_message import Bytes, Kind, TensorHeader


class ScriptedListener:
    """What was heard is taken in its order; `said` is what was answered, and to whom."""

    def __init__(self) -> None:
        self.heard: deque[Received] = deque()
        self.said: list[tuple[bytes, FromRank]] = []
        self.handed_back: list[TensorHeader] = []
        self.vital: list[bytes] = []
        self.admitted: list[str] = []
        self.gone: set[bytes] = set()

    def hear(
        self,
        address: bytes,
        order: ToRank,
        *,
        epoch: int,
        rank: int = 1,
        key: str = "leader",
        source: int = 0,
    ) -> None:
        header, payload = encode(order)
        spoken = replace(header, epoch=epoch, target=rank, source=source)
        self.heard.append(Received(spoken, payload, address, key))

    def hear_forward(
        self,
        address: bytes,
        *,
        epoch: int,
        sequence: int = 0,
        step: int = 0,
        key: str = "leader",
        source: int = 0,
    ) -> None:
        header = TensorHeader(
            kind=Kind.FORWARD, epoch=epoch, sequence=sequence, step=step, source=source
        )
        self.heard.append(Received(header, b"", address, key))

    def hear_partial(
        self, address: bytes, *, epoch: int, sequence: int = 0, source: int = 0
    ) -> None:
        header = TensorHeader(kind=Kind.PARTIAL, epoch=epoch, sequence=sequence, source=source)
        self.heard.append(Received(header, b"", address))

    def admit(self, key: str) -> None:
        self.admitted.append(key)

    def end_with(self, address: bytes) -> None:
        self.vital.append(address)

    def reply(self, address: bytes, header: TensorHeader, payload: Bytes) -> None:
        if address in self.gone:
            raise LinkLost("it is gone")
        if header.kind is Kind.ORDER:
            self.said.append((address, from_rank(payload)))
        else:
            self.handed_back.append(header)

    def receive(self, timeout_s: float) -> Received | None:
        assert self.heard, "the rank would wait for ever"
        return self.heard.popleft()
