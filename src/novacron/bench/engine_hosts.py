"""Engine hosts for a server under test: `novacron engine` behind links that can be made to fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from novacron.bench.faulty_link import FaultyLink
from novacron.engine.link.address import EngineAddress
from novacron.engine.link.keys import KeyPair, write_key
from novacron.errors import EngineDead

_COMMAND: Final = (sys.executable, "-c", "from novacron.cli.main import main; main()", "engine")
_READY: Final = re.compile(r"^ready: (\S+)$", re.MULTILINE)
_START_S: Final = 120.0
_POLL_S: Final = 0.02


class BenchHost:
    """One host, found at one address however often it is started: that of its link."""

    def __init__(
        self, folder: Path, name: str, allow: str, environment: Mapping[str, str], num_threads: int
    ) -> None:
        self._log_file = folder / f"{name}.log"
        self._environment = dict(environment)
        self._arguments = (
            "--allow", allow, "--link-key", str(folder / f"{name}.key"), "--end-with-stdin",
            "--num-threads", str(num_threads),
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self.link: FaultyLink | None = None
        self.address = ""

    async def start(self) -> None:
        """Return when it listens, again at the same port. Raises EngineDead if it does not."""
        self._process = self._spawn()
        deadline_s = time.monotonic() + _START_S
        while (found := _READY.search(self._log_file.read_text())) is None:
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise EngineDead(
                    f"An engine's host did not start. Its last words:\n{self._log_file.read_text()}"
                )
            await asyncio.sleep(_POLL_S)
        own = EngineAddress.parse(found[1])
        if self.link is None:
            self._port = own.port
            self.link = FaultyLink(own.port)
            self.address = str(EngineAddress("127.0.0.1", self.link.port, own.public_key))

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log_file.open("wb") as log:
            return subprocess.Popen(
                [*_COMMAND, "--listen", f"tcp://127.0.0.1:{self._port}", *self._arguments],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        """Leave no process behind, in whatever state it is."""
        if self._process is not None:
            tree = []
            with contextlib.suppress(psutil.Error):
                tree = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            self._process.communicate()
            for child in tree:
                with contextlib.suppress(psutil.Error):
                    child.kill()
        if self.link is not None:
            self.link.__exit__(None, None, None)


@contextlib.asynccontextmanager
async def engine_hosts(
    number: int, environment: Mapping[str, str], num_threads: int
) -> AsyncIterator[tuple[list[BenchHost], tuple[str, ...]]]:
    """So many hosts that listen, and the settings by which a server finds them."""
    with tempfile.TemporaryDirectory(prefix="novacron-chaos-hosts-") as name:
        folder, keys = Path(name), KeyPair.make()
        write_key(folder / "server.key", keys)
        hosts = [
            BenchHost(folder, f"host-{place}", keys.public, environment, num_threads)
            for place in range(number)
        ]
        try:
            await asyncio.gather(*(host.start() for host in hosts))
            addresses = ",".join(host.address for host in hosts)
            yield hosts, (f"engine_hosts={addresses}", f"link_key={folder / 'server.key'}")
        finally:
            for host in hosts:
                host.end()


def plain_environment(environment: Mapping[str, str], **more: str) -> dict[str, str]:
    """For hosts: what is set for servers is not for them."""
    ours = {name: value for name, value in environment.items() if not name.startswith("NOVACRON_")}
    return {**ours, "PATH": os.environ.get("PATH", ""), **more}
