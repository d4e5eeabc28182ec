"""The process that keeps a server's ledger: `python -m novacron.accounts.database.book_server`.

Its input is a socket to the server (accounts/book_process.py). It ends when that does, after what
it has begun, and by no signal that others of its group get.
"""

from __future__ import annotations

import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress

from novacron.accounts.book_messages import (
    Failed,
    FromBook,
    Open,
    Post,
    Posted,
    Renewed,
    ToBook,
    frame,
    read_question,
    take_frames,
    told,
)
from novacron.accounts.database.connection import Database
from novacron.accounts.database.ledger_book import LedgerBook
from novacron.errors import DatabaseUnavailable

_READ_BYTES = 65536


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=sys.stdin.fileno()) as link, suppress(ConnectionError):
        serve(link)  # until the other side is gone, or was killed


def serve(link: socket.socket) -> None:
    """Answer until the other side is gone."""
    questions = _questions(link)
    first = next(questions, None)
    if not isinstance(first, Open):
        return
    book = LedgerBook(Database(first.url), coordinator=first.coordinator)
    for question in questions:
        link.sendall(frame(_answer(book, question)))


def _questions(link: socket.socket) -> Iterator[ToBook]:
    received = bytearray()
    while data := link.recv(_READ_BYTES):
        received += data
        yield from map(read_question, take_frames(received))


def _answer(book: LedgerBook, question: ToBook) -> FromBook:
    try:
        if isinstance(question, Post):
            return Posted(tuple(map(told, book.post(question.postings))))
        book.renew()
        return Renewed()
    except DatabaseUnavailable as error:
        return Failed(str(error), is_bug=False)
    except Exception:
        return Failed(traceback.format_exc(), is_bug=True)


if __name__ == "__main__":
    main()
