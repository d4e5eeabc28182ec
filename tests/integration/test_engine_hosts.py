"""`novacron engine` twice, and a server over both: the tokens of one engine, though one of the
hosts is killed, and the other one frozen for longer than its link lasts."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from tests.integration.test_replicas import NUM_STREAMS, of_one_engine, streamed

from novacron.testing.server_process import (
    PATIENCE_S,
    ServerProcess,
    run_novacron,
    wait_until,
)

pytestmark = pytest.mark.slow

NOVACRON = (sys.executable, "-c", "from novacron.cli.main import main; main()")
READY = re.compile(r"ready: (\S+)")


class Host:
    """`novacron engine`, which is found at one address however often it is started."""

    def __init__(self, folder: Path, name: str, allow: str) -> None:
        self._arguments = ["--allow", allow, "--link-key", str(folder / f"{name}.key")]
        self._log = folder / f"{name}.log"
        self.address = ""
        self.start("tcp://127.0.0.1:0")

    def start(self, listen: str) -> None:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*NOVACRON, "engine", "--listen", listen, "--end-with-stdin", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: READY.search(self._log.read_text()) or self.process.poll() is not None)
        found = READY.search(self._log.read_text())
        assert found is not None, self._log.read_text()
        self.address = found[1]

    def start_again(self) -> None:
        self.process.communicate(timeout=PATIENCE_S)
        self.start(f"tcp://{self.address.partition('@')[2]}")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def hosts(folder: Path, allow: str) -> Iterator[list[Host]]:
    started: list[Host] = []
    try:
        for name in ("one", "two"):
            started.append(Host(folder, name, allow))
        yield started
    finally:
        for host in started:
            host.end()


async def texts_while(url: str, fault: Callable[[], object]) -> list[str]:
    """Of all streams; `fault` happens once all have begun."""
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
        begun = [asyncio.Event() for _ in range(NUM_STREAMS)]
        streams = [
            asyncio.create_task(streamed(http, number, begun[number]))
            for number in range(NUM_STREAMS)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        fault()
        return await asyncio.gather(*streams)


def test_two_hosts_answer_as_one_engine(tmp_path: Path) -> None:
    expected = of_one_engine()
    key = str(tmp_path / "server.key")
    allow = run_novacron("cluster", "key", "--link-key", key).stdout.strip()
    with (
        hosts(tmp_path, allow) as (one, two),
        ServerProcess(
            "--engine-hosts", f"{one.address},{two.address}", "--link-key", key, "--dtype",
            "float32", "--num-threads", "1", "--kv-ram-size", "0", "--link-timeout", "1s",
            log_file=tmp_path / "log",
        ) as server,
    ):  # fmt: skip
        server.wait_ready()

        def wait_whole() -> None:
            wait_until(lambda: server.metric("novacron_replica_state", state="ready") == 2)

        wait_whole()
        assert asyncio.run(texts_while(server.url, two.process.kill)) == expected
        two.start_again()
        wait_whole()

        def freeze() -> None:
            os.kill(one.process.pid, signal.SIGSTOP)

        assert asyncio.run(texts_while(server.url, freeze)) == expected
        wait_until(lambda: server.metric("novacron_replica_state", state="ready") == 1)
        os.kill(one.process.pid, signal.SIGCONT)
        wait_whole()
        assert server.metric("novacron_recovery_pause_seconds_count") > 0
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert one.process.poll() is None  # it waits for the next server
