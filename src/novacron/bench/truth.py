"""Truth: whether what a server says of itself agrees with what is so.

The harness knows which processes have ended, which are stopped and which are cut off. The server is
asked again and again what it takes to be active; how long it is mistaken is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import psutil

from novacron.bench.faults import Site
from novacron.bench.http_client import HttpClient
from novacron.errors import NotReady

Condition = Literal["works", "ended", "stopped", "cut off"]

_LOOK_S: Final = 0.2


class Truth:
    """Looks while `run` runs. `num_contradictions`: looks, two in a row, at which /ready and the
    states of replicas disagreed; `num_called_dead`: at which /health said that the server is beyond
    help."""

    def __init__(
        self, client: HttpClient, site: Site, held: Sequence[tuple[float, float]] = ()
    ) -> None:
        """`held`: when this process did not run itself; it may grow."""
        self._held = held
        self._client = client
        self._site = site
        self._since: dict[str, tuple[float, Condition]] = {}
        self._mistakes: list[tuple[Condition, float, float]] = []  # from, to
        self._disagreed = False
        self.num_looks = self.num_contradictions = self.num_called_dead = 0

    @property
    def mistaken_s(self) -> dict[str, list[float]]:
        """For how long something was called active that was not, by what it was. Judged when asked
        for: that this process was held is noted at some moment after it goes on."""
        found: dict[str, list[float]] = {}
        for condition, since_s, until_s in self._mistakes:
            if not any(begin < until_s and end > since_s for begin, end in self._held):
                found.setdefault(condition, []).append(until_s - since_s)
        return found

    async def run(self) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(NotReady, msgspec.DecodeError):
                await self._look()
            await asyncio.sleep(_LOOK_S)

    async def _look(self) -> None:
        ready = await self._client.get("/ready")
        health = await self._client.get("/health")
        told = await self._client.get("/api/v1/llm/cluster/status")
        if not told.ok:
            return
        status = msgspec.json.decode(told.body)
        self.num_looks += 1
        self.num_called_dead += health.status == 503
        disagrees = ready.ok != any(one["state"] == "ready" for one in status["replicas"])
        self.num_contradictions += disagrees and self._disagreed
        self._disagreed = disagrees
        self.see(self._claims(status), time.perf_counter())

    def see(self, claims: Mapping[str, Condition], now_s: float) -> None:
        """`claims`: of what is called active, how it is."""
        for name, condition in claims.items():
            if condition != "works":
                self._since.setdefault(name, (now_s, condition))
        for name, (since_s, condition) in tuple(self._since.items()):
            if claims.get(name, "works") == "works":
                self._mistakes.append((condition, since_s, now_s))
                del self._since[name]

    def _claims(self, status: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Condition]:
        claims: dict[str, Condition] = {}
        for worker in status["workers"]:
            if worker["status"] == "active" and worker["pid"] is not None:
                claims[f"process {worker['pid']}"] = condition_of(worker["pid"])
        if self._site.hosts:
            for replica in status["replicas"]:
                if replica["state"] == "ready":
                    place = int(replica["replica_id"].rpartition("-")[2])
                    claims[replica["replica_id"]] = self._condition_of_host(place)
        return claims

    def _condition_of_host(self, place: int) -> Condition:
        host = self._site.hosts[place]
        if host.has_ended:
            return "ended"
        if host.link is not None and host.link.is_silent:
            return "cut off"
        own = condition_of(host.process.pid)
        if own != "works":
            return own
        engines = [one for one in host.process.children() if "novacron.engine" in _words(one)]
        conditions = [condition_of(one.pid) for one in engines]
        return next((one for one in conditions if one != "works"), "works") if engines else "ended"


def condition_of(pid: int) -> Condition:
    try:
        status = psutil.Process(pid).status()
    except psutil.Error:
        return "ended"
    if status == psutil.STATUS_ZOMBIE:
        return "ended"
    return "stopped" if status == psutil.STATUS_STOPPED else "works"


def _words(process: psutil.Process) -> Sequence[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return ()
