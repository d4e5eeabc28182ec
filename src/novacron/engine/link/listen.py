"""Where an EngineHost listens: tcp://ADDRESS:PORT, or the first free one of FIRST-LAST."""

from __future__ import annotations

import re
import socket as sockets
from typing import Final

import zmq

from novacron.errors import ConfigError

DEFAULT_PORT: Final = 9091

_PLACE: Final = re.compile(r"(?:tcp://)?(\[[^\]]+\]|[^:\[\]]+):(\d+)(?:-(\d+))?")


def bind_first_free(socket: zmq.Socket[bytes], listen: str) -> tuple[str, int]:
    """Bind the socket; the host that others may know this one by, and the port. Raises
    ConfigError."""
    found = _PLACE.fullmatch(listen.strip())
    if found is None:
        raise ConfigError(
            f"listen is {listen!r}: give tcp://ADDRESS:PORT, such as tcp://0.0.0.0:{DEFAULT_PORT}."
        )
    host = found[1].strip("[]")
    first, last = int(found[2]), int(found[3] or found[2])
    socket.ipv6 = ":" in host
    place = f"[{host}]" if ":" in host else host
    for port in range(first, last + 1):
        try:
            socket.bind(f"tcp://{place}:{port or '*'}")
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE and port < last:
                continue
            raise ConfigError(
                f"listen is {listen!r}: {error.strerror}. Choose an address of this host and a "
                "free port."
            ) from error
        break
    else:
        raise ConfigError(f"listen is {listen!r}: there is no port between {first} and {last}.")
    bound = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    is_any = host in ("0.0.0.0", "::", "*")  # nosec B104 # binds nothing
    known_as = sockets.gethostname() if is_any else host
    return known_as, int(bound.rpartition(":")[2])
