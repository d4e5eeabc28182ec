"""Values of a Redis server, read from its socket into the memory that they are for.

redis-py makes an object of each value, out of the buffer of a parser: two copies more, into memory
that the system has to find and clear anew each time. Everything else stays with redis-py: finding
the server, passwords, TLS, and connections that are kept.

Source: the Redis serialization protocol, version 2 (RESP2).
"""

from __future__ import annotations

import io
import socket
from collections.abc import Sequence
from typing import Any, Final

import redis

from novacron.kv_tiers.tier import Bytes

_BUFFER_BYTES: Final = 2**15  # larger ones copy more, smaller ones ask the system more often
_MOST_VALUE_BYTES: Final = 512 * 2**20  # what a server takes
_END: Final = b"\r\n"


def read_values(
    pool: redis.ConnectionPool, names: Sequence[str], into: Sequence[Bytes]
) -> list[bool]:
    """Fill each buffer with the value of its name; False where there is none, or one of another
    length, and the buffer may hold anything then. Raises RedisError, and OSError for a connection
    that failed: it is not used again."""
    connection: Any = pool.get_connection()
    try:
        connection.send_command("MGET", *names)
        with io.BufferedReader(_raw_of(connection), _BUFFER_BYTES) as answer:
            return _read_array(answer, into)
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _raw_of(connection: Any) -> socket.SocketIO:
    """The socket of a connection on which a command was just sent, as a file, which does not close
    it."""
    own: socket.socket = connection._sock  # there is no public way to it
    return own.makefile("rb", buffering=0)


def _read_array(answer: io.BufferedReader[socket.SocketIO], into: Sequence[Bytes]) -> list[bool]:
    if _count(answer, b"*") != len(into):
        raise redis.InvalidResponse("an answer of another length than was asked for")
    return [_read_value(answer, buffer) for buffer in into]


def _read_value(answer: io.BufferedReader[socket.SocketIO], buffer: Bytes) -> bool:
    num_bytes = _count(answer, b"$")
    if num_bytes < 0:
        return False
    if num_bytes != len(buffer):
        if num_bytes > _MOST_VALUE_BYTES:
            raise redis.InvalidResponse("a value longer than any")
        _skip(answer, num_bytes)
    elif answer.readinto(buffer.data) != num_bytes:
        raise redis.ConnectionError("the connection ended in a value")
    if answer.read(len(_END)) != _END:
        raise redis.InvalidResponse("a value does not end where it should")
    return num_bytes == len(buffer)


def _skip(answer: io.BufferedReader[socket.SocketIO], num_bytes: int) -> None:
    while num_bytes > 0:
        data = answer.read(min(num_bytes, _BUFFER_BYTES))
        if not data:
            raise redis.ConnectionError("the connection ended in a value")
        num_bytes -= len(data)


def _count(answer: io.BufferedReader[socket.SocketIO], mark: bytes) -> int:
    """The number on a line that begins with this mark. An error of the server is raised."""
    line = answer.readline(_BUFFER_BYTES)
    if not line:
        raise redis.ConnectionError("the connection ended")
    if line.startswith(b"-"):
        raise redis.ResponseError(line[1:].decode(errors="replace").strip())
    if not line.startswith(mark) or not line.endswith(_END):
        raise redis.InvalidResponse("not an answer")
    return int(line[1:])
