"""The socket a server listens on: bound before anything slow begins, so that a port that is taken
is reported at once."""

from __future__ import annotations

import errno
import resource
import socket

from novacron.errors import ConfigError

_OTHER_FILES = 128  # sockets to the engine, logs, libraries


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


def allow_connections(number: int) -> list[str]:
    """Let this process open so many, if the system allows it; else a warning."""
    wanted = number + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return []
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    except (OSError, ValueError):  # beyond what the kernel allows anybody
        possible = soft
    if possible == wanted:
        return []
    return [
        f"The system allows this process {possible} open files, too few for {number} connections. "
        "Raise the limit (ulimit -Hn), or lower max_connections."
    ]


def url_of(listener: socket.socket, *, scheme: str = "http") -> str:
    """The URL to reach it at from this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # nosec B104 # binds nothing
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


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
