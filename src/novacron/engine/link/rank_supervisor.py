"""RankSupervisor: has a rank of this host waiting for a leader, always.

A rank's process lives for one group. When it ends, however it does, the next one takes its place
and its port, and has imported what it needs before anybody asks for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Final

import msgspec
import psutil

from novacron.engine.link.keys import KeyPair
from novacron.engine.link.rank_arguments import RankArguments
from novacron.errors import ConfigError
from novacron.observability.logs import LogFormat

_MODULE: Final = "novacron.engine.link.rank_process"
_LOOK_S: Final = 0.5
_STOPPED_S: Final = 10.0  # then a process that the system keeps stopped is killed
_SHORT_LIFE_S: Final = 2.0
_REST_S: Final = 1.0  # after a life that was short

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SupervisorConfig:
    listen: str
    keys: KeyPair
    allowed: tuple[str, ...]
    given: dict[str, object]
    log_level: str
    log_format: LogFormat


class RankSupervisor:
    def __init__(self, config: SupervisorConfig) -> None:
        """Starts the first process, and returns when it listens. Raises ConfigError if it cannot
        listen there."""
        self._config = config
        self._asked_to_end = threading.Event()
        self._was_stopped = False  # from outside, and killed by us for that
        self._process, self.address = self._start(config.listen)

    @property
    def pid(self) -> int:
        """Of the process that waits, or is a rank, now."""
        return self._process.pid

    def run(self) -> None:
        """Until `end` is called, from any thread or signal."""
        place = self.address.rpartition("@")[2]
        started_s = time.monotonic()
        while not self._asked_to_end.is_set():
            if not self._is_over():
                continue
            _end_others(self._process)
            _close_pipes(self._process)
            logger.info("the rank has ended with code %d; the next one", self._process.returncode)
            if time.monotonic() - started_s < _SHORT_LIFE_S:
                self._asked_to_end.wait(_REST_S)
            if self._asked_to_end.is_set():
                break
            started_s = time.monotonic()
            has_crashed = self._process.returncode != 0 and not self._was_stopped
            self._was_stopped = False
            try:
                self._process, _ = self._start(
                    f"tcp://{self._host_of(place)}", follows_a_crash=has_crashed
                )
            except ConfigError as error:
                logger.error("%s", error)
        self._process.kill()
        self._process.wait()
        _end_others(self._process)
        _close_pipes(self._process)

    def end(self) -> None:
        self._asked_to_end.set()

    def _host_of(self, place: str) -> str:
        """Where the first one listened, with the port that it got."""
        host = self._config.listen.removeprefix("tcp://").rpartition(":")[0]
        return f"{host}:{place.rpartition(':')[2]}"

    def _is_over(self) -> bool:
        """Waits a moment. A process that is kept stopped is killed: who waits for its rank waits
        for another."""
        try:
            self._process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            self._kill_if_stopped()
            return False
        return True

    def _kill_if_stopped(self) -> None:
        stopped_since_s = time.monotonic()
        while _is_stopped(self._process.pid) and not self._asked_to_end.wait(_LOOK_S):
            if time.monotonic() - stopped_since_s > _STOPPED_S:
                logger.error("the rank's process has been stopped for long: it is killed")
                self._was_stopped = True
                self._process.kill()
                return

    def _start(
        self, listen: str, *, follows_a_crash: bool = False
    ) -> tuple[subprocess.Popen[bytes], str]:
        """The process, and where it is found."""
        config = self._config
        process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        arguments = RankArguments(
            listen=listen,
            secret_key=config.keys.secret,
            allowed=config.allowed,
            given=config.given,
            log_level=config.log_level,
            log_format=config.log_format,
            follows_a_crash=follows_a_crash,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(arguments) + b"\n")
        process.stdin.flush()
        said = process.stdout.readline().decode().strip()
        if "@" not in said:
            process.kill()
            process.wait()
            _close_pipes(process)
            raise ConfigError(said.removeprefix("error: ") or "The rank's process does not start.")
        return process, said


def _end_others(process: subprocess.Popen[bytes]) -> None:
    """Those of its session: further ranks of its stage end with it, unless the system keeps one
    stopped."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    """Of one that has ended. Harmless when called again."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:  # it has ended
        return False
