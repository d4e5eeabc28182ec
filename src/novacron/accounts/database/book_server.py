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

from novacron.accounts.book_messages import (
    Failed,
    FromBook,
    Open,
    Post,
    Posted,
    Tended,
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
    with socket.socket(fileno=sys.stdin.fileno()) as link:
        serve(link)


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
    while data := _received(link):
        received += data
        yield from map(read_question, take_frames(received))


def _received(link: socket.socket) -> bytes:
    try:
        return link.recv(_READ_BYTES)
    except ConnectionResetError:  # the server was killed
        return b""


def _answer(book: LedgerBook, question: ToBook) -> FromBook:
    try:
        if isinstance(question, Post):
            return Posted(tuple(map(told, book.post(question.postings))))
        return Tended(book.tend())
    except DatabaseUnavailable as error:
        return Failed(str(error), is_bug=False)
    except Exception:
        return Failed(traceback.format_exc(), is_bug=True)


if __name__ == "__main__":
    main()
