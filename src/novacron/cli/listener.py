"""The socket a server listens on: bound before anything slow begins, so that a port that is taken
is reported at once."""

from __future__ import annotations

import errno
import socket

from novacron.errors import ConfigError


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address; port 0 takes a free one. Raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(
            f"host is {host!r}: {error}. Give an address of this machine, such as 127.0.0.1 "
            "(only this machine) or 0.0.0.0 (every network)."
        ) from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _explained(error, host, port) from error
    listener.set_inheritable(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL to reach it at from this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _explained(error: OSError, host: str, port: int) -> ConfigError:
    match error.errno:
        case errno.EADDRINUSE:
            remedy = "another program listens there. Stop it, or choose another --port (0: any)."
        case errno.EACCES:
            remedy = "ports below 1024 need special rights. Choose another --port."
        case errno.EADDRNOTAVAIL:
            return ConfigError(
                f"host is {host!r}: this machine has no such address. Use 127.0.0.1 or 0.0.0.0."
            )
        case _:
            remedy = f"{error.strerror}."
    return ConfigError(f"port is {port}: {remedy}")
