"""Faults: what strikes the processes of a server that is tested, from outside, as it happens."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

import psutil

from novacron.errors import ConfigError

Kind = Literal["kill", "stop", "kill twice", "kill rank", "stop rank"]

_ENGINE: Final = "novacron.engine"
_RANK: Final = "novacron.executor.rank_process"


@dataclass(frozen=True)
class Fault:
    """One that struck. `at_s` is time.perf_counter()."""

    kind: Kind
    at_s: float


class Victims:
    """The engine processes of the server with this process id, and their ranks."""

    def __init__(self, server_pid: int) -> None:
        self._server = psutil.Process(server_pid)

    def engines(self) -> list[psutil.Process]:
        return self._those(_ENGINE)

    def ranks(self) -> list[psutil.Process]:
        return self._those(_RANK)

    def _those(self, module: str) -> list[psutil.Process]:
        found = []
        for process in self._server.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if module in process.cmdline():
                    found.append(process)
        return found


class Injector:
    """Draws faults, and lets them strike. `until_loading` returns at some moment of the start of
    the next engine."""

    def __init__(
        self,
        victims: Victims,
        kinds: tuple[Kind, ...],
        seed: int,
        until_loading: Callable[[], Awaitable[None]],
    ) -> None:
        self._victims = victims
        self._kinds = kinds
        self._draw = random.Random(seed)
        self._until_loading = until_loading
        self.faults: list[Fault] = []

    def check(self) -> None:
        """Raises ConfigError if a kind finds nothing to hit."""
        if any(kind.endswith("rank") for kind in self._kinds) and not self._victims.ranks():
            raise ConfigError(
                "--faults names ranks, but the server has none: add --set tensor_parallel_size=2."
            )

    def delay_s(self, most_s: float) -> float:
        return self._draw.uniform(0.0, most_s)

    async def strike(self) -> None:
        """One fault. Nothing happens if there is nothing to hit."""
        kind = self._kinds[len(self.faults) % len(self._kinds)]
        victims = self._victims.ranks() if kind.endswith("rank") else self._victims.engines()
        if not victims:
            return
        self.faults.append(Fault(kind, time.perf_counter()))
        stops = kind.startswith("stop")
        _send(self._draw.choice(victims), signal.SIGSTOP if stops else signal.SIGKILL)
        if kind == "kill twice":
            await self._until_loading()
            for engine in self._victims.engines():
                _send(engine, signal.SIGKILL)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
