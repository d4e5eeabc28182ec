"""Faults: what strikes a server that is tested, from outside, as it happens: its processes, the
links to its engines' hosts, its disk."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import psutil

from novacron.bench.engine_hosts import BenchHost
from novacron.bench.small_disk import SmallDisk
from novacron.errors import ConfigError

Kind = Literal[
    "kill", "stop", "kill twice", "kill all", "kill rank", "stop rank",
    "kill host", "stop host", "cut", "partition", "slow link", "full disk",
]  # fmt: skip

UNNOTICED: Final = frozenset({"slow link", "full disk"})  # all goes on, and nothing says otherwise
KILLS: Final = ("kill", "kill twice", "kill rank", "kill host")  # that leave other replicas alone

_ENGINES: Final = ("novacron.engine",)
_RANKS: Final = ("novacron.executor.rank_process", "novacron.executor.stage_process")
_HOST_KINDS: Final = frozenset({"kill host", "stop host", "cut", "partition", "slow link"})
_LONGEST_DELAY_S: Final = 0.15
_HOLD_S: Final = (1.0, 3.0)  # beyond the patience that is tried
_REPLACED_WITHIN_S: Final = 60.0
_LOOK_S: Final = 0.05


@dataclass(frozen=True)
class Fault:
    """One that struck. `at_s` is time.perf_counter()."""

    kind: Kind
    at_s: float


class Victims:
    """The engine processes of the server with this process id, and their ranks; also below `hosts`,
    where they run elsewhere."""

    def __init__(self, server_pid: int, hosts: Iterable[BenchHost] = ()) -> None:
        self._server_pid = server_pid
        self._hosts = tuple(hosts)

    def engines(self) -> list[psutil.Process]:
        return self._those(_ENGINES)

    def ranks(self) -> list[psutil.Process]:
        return self._those(_RANKS)

    def _those(self, modules: tuple[str, ...]) -> list[psutil.Process]:
        found = []
        roots = [self._server_pid, *(one.process.pid for one in self._hosts if not one.has_ended)]
        for root in roots:
            with contextlib.suppress(psutil.Error):
                found += [
                    process
                    for process in psutil.Process(root).children(recursive=True)
                    if _runs(process, modules)
                ]
        return found


def _runs(process: psutil.Process, modules: tuple[str, ...]) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(word in modules for word in process.cmdline())
    return False


@dataclass(frozen=True)
class Site:
    """What can be struck."""

    victims: Victims
    hosts: Sequence[BenchHost] = ()
    disk: SmallDisk | None = None
    patience_s: float = field(default=2.0)  # for which a silent engine or link is waited


class Injector:
    """Draws faults, and lets them strike. `until_loading` returns at some moment of the start of
    the next engine. What it has done to links, disks and hosts, it undoes after a while;
    `wait_healed` waits for that, and until nothing is left of processes that it has stopped: the
    server takes them to be active for a while, and nobody may count on them then."""

    def __init__(
        self,
        site: Site,
        kinds: tuple[Kind, ...],
        seed: int,
        until_loading: Callable[[], Awaitable[None]],
    ) -> None:
        self._site = site
        self._kinds = kinds
        self._seed = seed
        self._draw = random.Random(seed)
        self._until_loading = until_loading
        self._healing: set[asyncio.Task[None]] = set()
        self._stopped: list[psutil.Process] = []
        self.num_before = 0  # faults of an earlier part of this run
        self.faults: list[Fault] = []

    def begin_round(self, number: int) -> None:
        """Whatever is drawn from here on follows from the seed and this number."""
        self._draw = random.Random(f"{self._seed}-{number}")

    def check(self) -> None:
        """Raises ConfigError if a kind finds nothing to hit."""
        if any(kind.endswith("rank") for kind in self._kinds) and not self._site.victims.ranks():
            raise ConfigError(
                "--faults names ranks, but the server has none: add --set tensor_parallel_size=2."
            )
        if _HOST_KINDS.intersection(self._kinds) and not self._site.hosts:
            raise ConfigError("--faults names hosts or links, but there are none: add --hosts 2.")
        if "full disk" in self._kinds and self._site.disk is None:
            raise ConfigError("--faults names a full disk: add --small-disk-mib 64.")

    def delay_s(self, most_s: float) -> float:
        return self._draw.uniform(0.0, most_s)

    async def strike(self) -> Fault | None:
        """One fault; None, and nothing happens, if there is nothing to hit."""
        kind = self._kinds[(self.num_before + len(self.faults)) % len(self._kinds)]
        if kind == "full disk":
            strike = self._fill_disk
        elif kind in _HOST_KINDS:
            strike = self._strike_host
        else:
            strike = self._strike_process
        fault = Fault(kind, time.perf_counter())
        if not strike(kind):
            return None
        self.faults.append(fault)
        if kind == "kill twice":
            await self._until_loading()
            self._strike_newest()
        return fault

    async def wait_healed(self) -> None:
        """Until all that was done is undone. What is stopped and never replaced is waited for no
        longer than a minute."""
        while self._healing:
            await asyncio.gather(*self._healing)
        end_s = time.perf_counter() + _REPLACED_WITHIN_S
        while any(map(_is_stopped, self._stopped)) and time.perf_counter() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)  # nobody tells of the end of a process of others
        self._stopped.clear()

    def _strike_process(self, kind: Kind) -> bool:
        victims = self._site.victims
        processes = victims.ranks() if kind.endswith("rank") else victims.engines()
        if not processes:
            return False
        stops = kind.startswith("stop")
        for process in processes if kind == "kill all" else [self._draw.choice(processes)]:
            _send(process, signal.SIGSTOP if stops else signal.SIGKILL)
            self._stopped += [process] if stops else []
        return True

    def _strike_newest(self) -> None:
        """The engine that loads; its neighbours go on."""
        started_s: dict[psutil.Process, float] = {}
        for engine in self._site.victims.engines():
            with contextlib.suppress(psutil.Error):
                started_s[engine] = engine.create_time()
        if started_s:
            _send(max(started_s, key=started_s.__getitem__), signal.SIGKILL)

    def _strike_host(self, kind: Kind) -> bool:
        living = [one for one in self._site.hosts if not one.has_ended]
        if not living:
            return False
        host = self._draw.choice(living)
        link = host.link
        assert link is not None
        hold_s = self._site.patience_s + self._draw.uniform(*_HOLD_S)
        match kind:
            case "kill host":
                host.send_signal(signal.SIGKILL)
                self._later(hold_s - self._site.patience_s, host.start)
            case "stop host":
                host.send_signal(signal.SIGSTOP)
                self._later(hold_s, lambda: host.send_signal(signal.SIGCONT))
            case "cut":
                link.cut()
            case "partition":
                link.is_silent = True
                self._later(hold_s, lambda: setattr(link, "is_silent", False))
            case _:
                link.delay_s = self._draw.uniform(0.0, _LONGEST_DELAY_S)
                self._later(hold_s, lambda: setattr(link, "delay_s", 0.0))
        return True

    def _fill_disk(self, kind: Kind) -> bool:
        disk = self._site.disk
        assert disk is not None
        disk.fill()
        self._later(self._draw.uniform(*_HOLD_S), disk.empty)
        return True

    def _later(
        self, delay_s: float, undo: Callable[[], object] | Callable[[], Coroutine[None, None, None]]
    ) -> None:
        async def heal() -> None:
            await asyncio.sleep(delay_s)
            done = undo()
            if asyncio.iscoroutine(done):
                await done

        task = asyncio.get_running_loop().create_task(heal())
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False
