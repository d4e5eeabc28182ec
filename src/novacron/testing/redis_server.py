"""A Redis or Valkey server of one's own, for tests and measurements, where its program is found."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis

_PATIENCE_S = 20.0


def find_server() -> str | None:
    """The program, if there is one on this machine."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


@contextlib.contextmanager
def running_redis(*arguments: str) -> Iterator[Path]:
    """A server that keeps nothing on disk; its socket. It goes with the context."""
    program = find_server()
    assert program is not None, "there is no redis-server; ask find_server before"
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        command = [program, "--port", "0", "--unixsocket", str(socket), "--save", ""]
        process = subprocess.Popen(
            [*command, "--dir", folder, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(process, socket)
            yield socket
        finally:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], socket: Path) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    with redis.Redis(unix_socket_path=str(socket)) as client:
        while time.monotonic() < deadline_s:
            assert process.poll() is None, "redis-server ended at its start"
            try:
                client.ping()
            except redis.AuthenticationError:
                return  # it wants a password, so it is there
            except redis.ConnectionError:
                time.sleep(0.02)
            else:
                return
    raise AssertionError("redis-server does not answer")
