"""`novacron serve` as users run it: a process of its own on a free loopback port, for tests.

Nothing in it is faked. Its log goes to a file, which tests read and failures show.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import psutil
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 120.0  # for what takes a second on a quiet machine
_COMMAND = (sys.executable, "-c", "from novacron.cli.main import main; main()")
_READY_LINE = re.compile(r"ready: (https?://\S+) serves")
_SERVE = ("serve", "--port", "0", "--log-format", "json")
_ENGINE_MODULE = "novacron.engine"
# Standard input is ours: a test run that is killed leaves no server behind.
_SERVE_AND_END_WITH_US = """
import os, threading

def end_with_the_tests():
    os.read(0, 1)
    os._exit(1)

threading.Thread(target=end_with_the_tests, daemon=True).start()
from novacron.cli.main import main
main()
"""


def wait_until(
    condition: Callable[[], object], *, patience_s: float = PATIENCE_S, poll_s: float = 0.01
) -> None:
    """Poll until `condition()` is true. Raises TimeoutError if it does not become so."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"What was waited for did not happen within {patience_s:g} s.")
        time.sleep(poll_s)


def run_novacron(
    *arguments: str, environment: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*_COMMAND, *arguments],
        env=_clean_environment(environment or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


class ServerProcess:
    """A server that was started with `arguments`; as a context manager it is ended at last.

    `log_file` receives both its output streams; `environment` is added to ours, of which settings
    of NovaCron are left out.
    """

    def __init__(
        self, *arguments: str, log_file: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.log_file = log_file
        self.url = ""  # known once it is ready
        with log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE_AND_END_WITH_US, *_SERVE, *arguments],
                env=_clean_environment(environment or {}),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def wait_ready(self) -> Self:
        """Return when requests are accepted. Raises RuntimeError if the server ends instead."""
        if not self.url:
            wait_until(lambda: _READY_LINE.search(self.log()) or self.process.poll() is not None)
            found = _READY_LINE.search(self.log())
            if found is None:
                raise RuntimeError(f"The server did not start:\n{self.log()}")
            self.url = found[1]
        wait_until(self.is_ready)
        return self

    def is_ready(self) -> bool:
        return self.get("/ready").status_code == 200

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=PATIENCE_S)

    def post(self, path: str, body: object) -> httpx2.Response:
        return httpx2.post(self.url + path, json=body, timeout=PATIENCE_S)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name (as in the text format) that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def is_idle(self) -> bool:
        """Nothing runs or waits, and no request holds a KV block."""
        return (
            self.metric("vllm:num_requests_running") == 0
            and self.metric("vllm:num_requests_waiting") == 0
            and self.metric("novacron_kv_blocks", kind="used") == 0
        )

    @property
    def engine(self) -> psutil.Process:
        """Its engine process. Raises LookupError while there is none."""
        for child in psutil.Process(self.process.pid).children():
            if _ENGINE_MODULE in child.cmdline():
                return child
        raise LookupError("The server has no engine process.")

    def pause_engine(self) -> None:
        """Keep the engine from computing, so that what runs goes on running."""
        self.engine.suspend()

    def resume_engine(self) -> None:
        self.engine.resume()

    def wait_exit(self) -> int:
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Leave no process behind, in whatever state it is."""
        tree = []
        if self.process.poll() is None:
            tree = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
        self.process.communicate()
        for child in tree:
            if child.is_running():
                child.kill()

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def log_records(self, level: str) -> list[dict[str, Any]]:
        """What was logged at `level`, and under it all lines that are no log records."""
        records = []
        for line in self.log().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                record = {"level": level, "message": line}
            if record["level"] == level:
                records.append(record)
        return records


StartServer = Callable[..., ServerProcess]  # (*arguments: str, **environment: str)


def _clean_environment(extra: dict[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NOVACRON_")}
    apart = {"NOVACRON_KV_DISK_SIZE": "0"}  # what one server keeps is not for the next
    return {**ours, **apart, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **extra}
