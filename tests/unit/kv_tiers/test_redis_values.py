"""Values read from a server's socket straight into buffers: whole, absent, cut, and garbage."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.kv_tiers.redis_values import read_values
from novacron.kv_tiers.tier import Bytes

SIZE = 50_000  # more than is read ahead
VALUE = bytes(np.random.default_rng(0).integers(0, 256, SIZE, np.uint8))


class OneAnswer:
    """A pool of one connection, to a server that has said all it says."""

    def __init__(self, answer: bytes) -> None:
        self._sock, self._server = socket.socketpair()
        self.is_connected, self.is_released = True, False
        self.sent: tuple[str, ...] = ()
        self._thread = threading.Thread(target=self._serve, args=(answer,))
        self._thread.start()

    def _serve(self, answer: bytes) -> None:
        with contextlib.suppress(OSError):
            self._server.sendall(answer)
        self._server.close()

    def get_connection(self) -> OneAnswer:
        return self

    def send_command(self, *words: str) -> None:
        self.sent = words

    def disconnect(self) -> None:
        self.is_connected = False

    def release(self, connection: object) -> None:
        assert connection is self
        self.is_released = True
        self._sock.close()
        self._thread.join()


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(*values: bytes | None) -> bytes:
    return b"*%d\r\n" % len(values) + b"".join(map(bulk, values))


def read(pool: Any, count: int) -> tuple[list[bool], list[Bytes]]:
    buffers: list[Bytes] = [np.zeros(SIZE, np.uint8) for _ in range(count)]
    found = read_values(pool, [f"n{place}" for place in range(count)], buffers)
    return found, buffers


def test_values_come_whole_and_what_is_absent_or_of_another_length_is_not_there() -> None:
    pool = OneAnswer(array(VALUE, None, b"", VALUE[::-1], VALUE + b"!", VALUE[1:], VALUE))
    found, buffers = read(pool, 7)
    assert found == [True, False, False, True, False, False, True]
    assert [buffers[place].tobytes() for place in (0, 3, 6)] == [VALUE, VALUE[::-1], VALUE]
    assert pool.sent == ("MGET", *(f"n{place}" for place in range(7)))
    assert pool.is_connected
    assert pool.is_released


def test_an_error_of_the_server_is_raised() -> None:
    pool = OneAnswer(b"-LOADING Redis is loading\r\n")
    with pytest.raises(redis.ResponseError, match="LOADING"):
        read(pool, 1)
    assert not pool.is_connected
    assert pool.is_released


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"*1",
        b"*2\r\n" + bulk(VALUE),
        b"*1\r\n$x\r\n",
        b"*1\r\n+OK\r\n",
        b"*1\r\n$999999999999\r\n",
        array(VALUE)[:-1],
        array(VALUE)[:-2] + b"..",
        array(VALUE)[:30_000],
        array(VALUE + VALUE)[:90_000],
    ],
)  # fmt: skip
def test_what_is_no_answer_is_an_error_and_ends_the_connection(answer: bytes) -> None:
    pool = OneAnswer(answer)
    with pytest.raises((redis.RedisError, OSError, ValueError)):
        read(pool, 1)
    assert not pool.is_connected
    assert pool.is_released


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_of_any_bytes_only_a_whole_value_is_taken(data: st.DataObject) -> None:
    """What is found has come in the answer, in one piece."""
    answer = bytearray(array(VALUE, None, VALUE))
    for _ in range(data.draw(st.integers(0, 3))):
        where = data.draw(st.sampled_from([0, 3, 8, 12, SIZE, len(answer) - 3]))
        answer[where : where + 4] = data.draw(st.binary(max_size=6))
    pool = OneAnswer(bytes(answer))
    try:
        found, buffers = read(pool, 3)
    except (redis.RedisError, OSError, ValueError):
        assert not pool.is_connected
    else:
        for is_there, buffer in zip(found, buffers, strict=True):
            assert not is_there or buffer.tobytes() in bytes(answer)
    assert pool.is_released
