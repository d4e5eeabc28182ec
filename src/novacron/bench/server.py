"""A `novacron serve` of our own on a free loopback port, for as long as a benchmark needs it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace

import psutil

from novacron.bench.http_client import HttpClient
from novacron.errors import EngineDead, NotReady

_COMMAND = (sys.executable, "-c", "from novacron.cli.main import main; main()", "serve")
_KV_FOLDER = "NOVACRON_KV_DISK_PATH"
_POLL_S = 0.005
_READY_WITHIN_S = 600.0
_END_WITHIN_S = 15.0
_LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class ServerPlan:
    """How to start a server: its arguments beside the address, its environment, its program."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    command: tuple[str, ...] = _COMMAND


class ServerProcess:
    """A running server. Its engine process, and whatever else it starts, is its tree."""

    def __init__(self, plan: ServerPlan) -> None:
        self.port = _free_port()
        self.started_s = time.perf_counter()
        self._log = tempfile.TemporaryFile(prefix="novacron-bench-")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*plan.command, *plan.arguments, "--host", "127.0.0.1", "--port", str(self.port)],
            env=dict(plan.environment),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def tree(self) -> list[psutil.Process]:
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    async def wait_for(self, client: HttpClient, path: str) -> float:
        """Seconds from the start of the process until `path` answers 200.

        Raises EngineDead with the end of the log if the server ends first; NotReady if it takes
        longer than ten minutes.
        """
        while (elapsed_s := time.perf_counter() - self.started_s) < _READY_WITHIN_S:
            with contextlib.suppress(NotReady):
                exchange = await client.get(path)
                if exchange.ok:
                    return exchange.ended_s - self.started_s
            if self._process.poll() is not None:
                raise EngineDead(
                    f"The server under test ended with exit code {self._process.returncode} before "
                    f"{path} answered. Its last words:\n{self.log_tail()}"
                )
            await asyncio.sleep(_POLL_S)
        raise NotReady(f"{path} did not answer within {elapsed_s:.0f} s.\n{self.log_tail()}")

    def log_tail(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])

    async def stop(self) -> None:
        """Ask it to end; insist after a while."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, _END_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._process.wait)
        self._log.close()


@contextlib.asynccontextmanager
async def running_server(plan: ServerPlan) -> AsyncIterator[ServerProcess]:
    with own_kv_folder() as folder:  # what an earlier run has left would make cold prompts warm
        environment = {_KV_FOLDER: folder, **plan.environment}
        server = ServerProcess(replace(plan, environment=environment))
        try:
            yield server
        finally:
            await server.stop()


@contextlib.contextmanager
def own_kv_folder() -> Iterator[str]:
    """A folder for the disk tier of one engine that is measured."""
    with tempfile.TemporaryDirectory(prefix="novacron-bench-kv-") as folder:
        yield folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
