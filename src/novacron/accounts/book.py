"""Book: where a Ledger posts to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from novacron.accounts.posting import Outcome, Posting


class Book(Protocol):
    """Where postings go, one call at a time: BookProcess, or BookInThread over one that blocks."""

    async def post(self, postings: Sequence[Posting]) -> Sequence[Outcome]: ...

    async def renew(self) -> None: ...

    async def close(self) -> None: ...


class BlockingBook(Protocol):
    """LedgerBook, or one that fails for a test."""

    def post(self, postings: Sequence[Posting]) -> list[Outcome]: ...

    def renew(self) -> None: ...


class BookInThread:
    """A Book over one that blocks, in this process. It takes the interpreter from the event loop
    at each of its statements: for tests and tools."""

    def __init__(self, book: BlockingBook) -> None:
        self._book = book

    async def post(self, postings: Sequence[Posting]) -> Sequence[Outcome]:
        return await asyncio.to_thread(self._book.post, postings)

    async def renew(self) -> None:
        await asyncio.to_thread(self._book.renew)

    async def close(self) -> None:
        """The database is somebody else's."""
