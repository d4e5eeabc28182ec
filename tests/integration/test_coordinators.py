"""Real coordinators with real engines on a real PostgreSQL; and one alone, on SQLite."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from novacron.accounts.database import audit, tables
from novacron.accounts.database.ledger_book import LedgerBook
from novacron.accounts.database.store import Store
from novacron.coordination.lease import Fence, LeaseLost
from novacron.testing.postgres_server import find_programs, new_database, running_postgres
from novacron.testing.server_process import PATIENCE_S, ServerProcess, wait_until

pytestmark = pytest.mark.slow

BASE = "/api/v1/llm"
TIMEOUT_S = 2.0
# half a second of the bundled model, in pieces that depend on the time
LONG = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 300,
    "ignore_eos": True,
    "temperature": 0.8,
    "seed": 7,
    "stream": True,
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Path]:
    if find_programs() is None:
        pytest.skip("there is no PostgreSQL on this machine")
    with running_postgres() as server:
        yield server


class Cluster:
    """Servers on one database, and one tenant with a key."""

    def __init__(self, database: str, folder: Path, servers: ExitStack) -> None:
        self.database = database
        self.store = Store(database)
        self._folder = folder
        self._servers = servers
        self._num_started = 0

    def start(self, number: int) -> list[ServerProcess]:
        started = [self._start() for _ in range(number)]
        return [server.wait_ready() for server in started]

    def _start(self) -> ServerProcess:
        self._num_started += 1
        server = ServerProcess(
            "--num-threads", "1", "--kv-ram-size", "0", "--api-key", "secret",
            "--coordinator-timeout", f"{TIMEOUT_S}s", "--stream-journal", "on",
            log_file=self._folder / f"{self._num_started}.log",
            environment={
                "NOVACRON_DATABASE": self.database,
                "NOVACRON_STATE_DIR": str(self._folder / str(self._num_started)),
            },
        )  # fmt: skip
        return self._servers.enter_context(server)

    def status(self, server: ServerProcess) -> Any:
        return httpx2.get(f"{server.url}{BASE}/cluster/status", headers=AUTH).json()

    def members(self, server: ServerProcess) -> int:
        return sum(one["is_alive"] for one in self.status(server)["coordinators"])

    def holder(self, server: ServerProcess, duty: str) -> tuple[str, int]:
        [found] = [one for one in self.status(server)["duties"] if one["duty"] == duty]
        return found["holder"], found["epoch"]

    def own_id(self, server: ServerProcess) -> str:
        [found] = [c for c in self.status(server)["coordinators"] if c["is_this"]]
        return str(found["coordinator_id"])


AUTH = {"authorization": "Bearer secret"}


@pytest.fixture
def cluster(request: pytest.FixtureRequest, postgres: Path, tmp_path: Path) -> Iterator[Cluster]:
    name = request.node.name.replace("[", "_").replace("]", "")
    with ExitStack() as servers:
        cluster = Cluster(new_database(postgres, name[:60]), tmp_path, servers)
        servers.callback(cluster.store.close)
        yield cluster


class Reader:
    """A client in a thread of its own, that notes what it is told until the connection ends."""

    def __init__(self, server: ServerProcess, request_id: str, **more: object) -> None:
        self.events: list[Any] = []
        self.times_s: list[float] = []
        self._url = f"{server.url}{BASE}/chat/completions"
        self._body = {**LONG, "request_id": request_id, **more}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, num_events: int) -> None:
        wait_until(lambda: len(self.events) >= num_events or not self._thread.is_alive())
        assert len(self.events) >= num_events, "it ended before"

    def wait_for_the_end(self) -> list[Any]:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.events

    def _read(self) -> None:
        try:
            with httpx2.stream(
                "POST", self._url, json=self._body, headers=AUTH, timeout=PATIENCE_S
            ) as answer:
                note(answer, self.events, self.times_s)
        except httpx2.HTTPError:
            pass  # its coordinator was killed


def note(answer: httpx2.Response, events: list[Any], times_s: list[float]) -> None:
    assert answer.status_code == 200, answer.read()
    for line in answer.iter_lines():
        if line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            if event["type"] != "health":
                events.append(event)
                times_s.append(time.monotonic())


def attach(server: ServerProcess, request_id: str, after: int | None = None) -> list[Any]:
    events: list[Any] = []
    headers = AUTH if after is None else {**AUTH, "last-event-id": str(after)}
    url = f"{server.url}{BASE}/stream/{request_id}"
    with httpx2.stream("GET", url, headers=headers, timeout=PATIENCE_S) as answer:
        note(answer, events, [])
    return events


def texts(events: list[Any]) -> list[str]:
    by_choice: dict[int, str] = {}
    for event in events:
        if event["type"] == "token":
            index = event["data"]["index"]
            by_choice[index] = by_choice.get(index, "") + event["data"]["text"]
    return [text for _, text in sorted(by_choice.items())]


def numbers(events: list[Any]) -> list[int]:
    return [event["sequence_number"] for event in events]


@pytest.mark.parametrize("more", [{}, {"n": 3}], ids=["one", "several"])
def test_the_owner_is_killed_in_the_middle(cluster: Cluster, more: dict[str, object]) -> None:
    first, second, third = cluster.start(3)
    wait_until(lambda: cluster.members(third) == 3)
    undisturbed = Reader(second, "undisturbed", **more).wait_for_the_end()
    for round, num_events in enumerate((2, 10)):  # a busy server tells several tokens in one
        owner = (first, second)[round]
        reader = Reader(owner, f"r{round}", **more)
        reader.wait_for(num_events)
        owner.process.kill()
        seen = reader.wait_for_the_end()
        rest = attach(third, f"r{round}", after=seen[-1]["sequence_number"])
        assert texts([*seen, *rest]) == texts(undisturbed)
        assert numbers([*seen, *rest]) == list(range(len(seen) + len(rest)))
        assert rest[-1]["data"]["usage"] == undisturbed[-1]["data"]["usage"]
    assert third.log_records("error") == []
    settled = [one for one in audit.entries(cluster.store.database) if one.state == "settled"]
    assert len({one.counted_tokens for one in settled}) == 1
    assert audit.differences(cluster.store.database) == []


def test_who_reads_through_another_coordinator_does_not_notice_a_death(cluster: Cluster) -> None:
    owner, other = cluster.start(2)
    wait_until(lambda: cluster.members(other) == 2)
    undisturbed = Reader(other, "undisturbed").wait_for_the_end()
    reader = Reader(owner, "s", background=True)
    reader.wait_for(5)
    threading.Timer(0.1, owner.process.kill).start()
    events = attach(other, "s")
    assert texts(events) == texts(undisturbed)
    assert numbers(events) == list(range(len(events)))


def test_a_stopped_holder_loses_its_duties_and_its_streams_and_is_fenced(cluster: Cluster) -> None:
    [holder] = cluster.start(1)
    wait_until(lambda: cluster.holder(holder, "ledger")[0] == cluster.own_id(holder))
    old = Fence("ledger", *cluster.holder(holder, "ledger"))
    [other] = cluster.start(1)
    undisturbed = Reader(other, "undisturbed").wait_for_the_end()
    reader = Reader(holder, "s")
    reader.wait_for(5)
    os.kill(holder.process.pid, signal.SIGSTOP)
    try:
        rest = attach(other, "s", after=reader.events[4]["sequence_number"])
        assert texts([*reader.events[:5], *rest]) == texts(undisturbed)
        wait_until(lambda: cluster.holder(other, "ledger")[0] == cluster.own_id(other))
        book = LedgerBook(cluster.store.database)
        with pytest.raises(LeaseLost):
            book.sweep(old)
        with cluster.store.database.reading() as connection:
            chunks = select(tables.stream_chunks.c.number).order_by(tables.stream_chunks.c.number)
            before = connection.execute(chunks).all()
    finally:
        os.kill(holder.process.pid, signal.SIGCONT)
    told = reader.wait_for_the_end()  # its reader is passed on to the other one
    assert texts(told) == texts(undisturbed)
    assert numbers(told) == list(range(len(told)))
    wait_until(lambda: cluster.members(holder) == 2)
    wait_until(lambda: cluster.holder(holder, "ledger")[1] > old.epoch)  # it asks now and then
    with cluster.store.database.reading() as connection:
        assert connection.execute(chunks).all() == before
    assert audit.differences(cluster.store.database) == []


def test_a_clean_end_hands_over_at_once(cluster: Cluster) -> None:
    first, second = cluster.start(2)
    wait_until(lambda: cluster.members(second) == 2)
    holder, _ = cluster.holder(second, "ledger")
    ending, other = (first, second) if cluster.own_id(first) == holder else (second, first)
    ending.process.terminate()
    assert ending.wait_exit() == 0
    wait_until(lambda: cluster.holder(other, "ledger")[0] == cluster.own_id(other))
    assert cluster.members(other) == 1


def test_a_background_call_goes_on_though_nobody_asks(cluster: Cluster) -> None:
    owner, other = cluster.start(2)
    wait_until(lambda: cluster.members(other) == 2)
    body = {**LONG, "stream": False, "background": True, "request_id": "b"}
    answer = httpx2.post(f"{owner.url}{BASE}/chat/completions", json=body, headers=AUTH)
    assert answer.status_code == 202
    owner.process.kill()
    wait_until(lambda: "stream b goes on here" in other.log())
    assert attach(other, "b")[-1]["type"] == "complete"


def test_alone_on_sqlite_a_killed_server_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    with ExitStack() as servers:
        cluster = Cluster(f"sqlite:///{tmp_path}/accounts.db", tmp_path, servers)
        servers.callback(cluster.store.close)
        [server] = cluster.start(1)
        undisturbed = Reader(server, "undisturbed").wait_for_the_end()
        reader = Reader(server, "s")
        reader.wait_for(10)
        server.process.kill()
        seen = reader.wait_for_the_end()
        [again] = cluster.start(1)
        rest = attach(again, "s", after=seen[-1]["sequence_number"])
        assert texts([*seen, *rest]) == texts(undisturbed)
        assert numbers([*seen, *rest]) == list(range(len(seen) + len(rest)))
