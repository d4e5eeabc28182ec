"""BookProcess: a LedgerBook in a process of its own, for an event loop.

A book in a thread takes the interpreter from the event loop dozens of times in a batch, which costs
a server more than all that it does with the request itself. The process ends with the server,
however that ends; if it ends before, it is started again, and goes on under the same name: what was
posted is in the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Final, cast

from novacron.accounts.book_messages import (
    Failed,
    FromBook,
    Open,
    Post,
    Posted,
    Renew,
    Renewed,
    frame,
    outcome_of,
    read_answer,
    take_frames,
)
from novacron.accounts.posting import Outcome, Posting
from novacron.errors import DatabaseUnavailable

_COMMAND: Final = (sys.executable, "-m", "novacron.accounts.database.book_server")
_END_WITHIN_S: Final = 5.0


class BookProcess:
    """Implements Book. Starts its process at once, so that it is there when it is needed."""

    def __init__(self, url: str, coordinator: str, command: Sequence[str] = _COMMAND) -> None:
        self._open = Open(url, coordinator)
        self._command = command
        self._process, self._socket = self._spawn()
        self._link: _Link | None = None

    async def post(self, postings: Sequence[Posting]) -> Sequence[Outcome]:
        """As LedgerBook.post. Raises RuntimeError for a bug over there."""
        answer = await self._ask(Post(tuple(postings)))
        assert isinstance(answer, Posted)
        return [outcome_of(one) for one in answer.outcomes]

    async def renew(self) -> None:
        answer = await self._ask(Renew())
        assert isinstance(answer, Renewed)

    async def close(self) -> None:
        if self._link is not None:
            self._link.close()
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _END_WITHIN_S)

    async def _ask(self, question: Post | Renew) -> FromBook:
        link = await self._linked()
        answer = await link.ask(frame(question))
        if isinstance(answer, Failed):
            raise (RuntimeError if answer.is_bug else DatabaseUnavailable)(answer.reason)
        return answer

    async def _linked(self) -> _Link:
        if self._link is not None and self._link.has_ended:
            await asyncio.to_thread(self._process.wait)
            self._process, self._socket = self._spawn()
            self._link = None
        if self._link is None:
            loop = asyncio.get_running_loop()
            _, self._link = await loop.create_connection(_Link, sock=self._socket)
            self._link.send(frame(self._open))
        return self._link

    def _spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            return subprocess.Popen(self._command, stdin=theirs.fileno()), ours


class _Link(asyncio.Protocol):
    """The connection to one process: one question at a time."""

    def __init__(self) -> None:
        self.has_ended = False
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[FromBook] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    async def ask(self, data: bytes) -> FromBook:
        if self.has_ended:
            raise _ended()
        self._answer = asyncio.get_running_loop().create_future()
        self.send(data)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        for message in take_frames(self._received):
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(read_answer(message))

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(_ended())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _ended() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "The process that keeps the ledger has ended; another one is started."
    )
