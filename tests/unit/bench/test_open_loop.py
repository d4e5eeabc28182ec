"""A client that sends on time, against a server that a test controls."""

from __future__ import annotations

import itertools
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from novacron.bench.open_loop import drive, post
from novacron.errors import RequestFailed

REQUESTS = [post("localhost", "/a", f"X-Number: {number}\r\n", b"{}") for number in range(3)]


class Server(socketserver.ThreadingTCPServer):
    """Answers in pieces. Holds every answer until as many requests are there as `gather`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"
        self.gather = 1
        self.seen: list[bytes] = []
        self.num_at_once = self.most_at_once = 0
        self.changed = threading.Condition()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.server_address[1]


class Handler(socketserver.StreamRequestHandler):
    server: Any

    def handle(self) -> None:
        while head := b"".join(itertools.takewhile(b"\r\n".__ne__, self.rfile)):  # none at the end
            self.seen(head)
            self.wfile.write(self.server.answer[:10])
            self.wfile.flush()
            self.wfile.write(self.server.answer[10:])
            if b"close" in self.server.answer:
                return

    def seen(self, head: bytes) -> None:
        self.rfile.read(2)
        with self.server.changed:
            self.server.seen.append(head)
            self.server.num_at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.num_at_once)
            self.server.changed.notify_all()
            self.server.changed.wait_for(lambda: len(self.server.seen) >= self.server.gather)
            self.server.num_at_once -= 1


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def numbers(server: Server) -> list[int]:
    return sorted(
        int(head.partition(b"X-Number: ")[2].partition(b"\r\n")[0]) for head in server.seen
    )


def test_requests_take_turns_and_all_are_answered(server: Server) -> None:
    times_s = drive(server.address, REQUESTS, [0.0] * 7)
    assert len(times_s) == 7
    assert all(time_s > 0 for time_s in times_s)
    assert numbers(server) == [0, 0, 0, 1, 1, 2, 2]


def test_nobody_waits_for_the_answer_of_another(server: Server) -> None:
    """The server answers none before it has all: a closed loop would wait for ever."""
    server.gather = 6
    times_s = drive(server.address, REQUESTS, [i * 0.002 for i in range(6)])
    assert server.most_at_once == 6
    assert times_s[0] > 0.009, "from when it was due, and the last is due 10 ms later"


def test_a_closed_loop_keeps_to_its_seats(server: Server) -> None:
    drive(server.address, REQUESTS, [0.0] * 50, most_at_once=4)
    assert len(server.seen) == 50
    assert server.most_at_once <= 4


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nfull",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer_fails(server: Server, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(RequestFailed):
        drive(server.address, REQUESTS, [0.0])


def test_a_server_that_is_not_there(server: Server) -> None:
    with pytest.raises(RequestFailed, match="No server answers"):
        drive(("127.0.0.1", 1), REQUESTS, [0.0])
