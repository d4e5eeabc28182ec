"""A Redis server for one measurement: the one that the measured server is set to, or one of our own
where its program is found."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from novacron.errors import NotReady

URL: Final = "NOVACRON_KV_REDIS_URL"
_PATIENCE_S: Final = 20.0


def has_redis(environment: Mapping[str, str]) -> bool:
    return bool(environment.get(URL)) or _program() is not None


@contextlib.contextmanager
def redis_settings(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Settings of servers that share a Redis server, in which nothing is there of others. Raises
    NotReady if it does not come up."""
    settings = {"KV_REDIS_PREFIX": f"bench-{uuid.uuid4().hex}"}
    if environment.get(URL):
        yield settings | {"KV_REDIS_URL": environment[URL]}
        return
    program = _program()
    assert program is not None, "ask has_redis before"
    with tempfile.TemporaryDirectory(prefix="novacron-bench-redis-") as folder:
        path = Path(folder) / "socket"
        command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        )
        try:
            _wait_for(process, path)
            yield settings | {"KV_REDIS_URL": f"unix://{path}"}
        finally:
            process.kill()
            process.wait()


def _program() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


def _wait_for(process: subprocess.Popen[bytes], path: Path) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            if client.recv(16).startswith(b"+PONG"):
                return
        time.sleep(0.02)
    raise NotReady("The Redis server that was started for the measurement does not answer.")
