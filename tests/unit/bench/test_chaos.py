"""The chaos harness sees what it is there to see: answers that are lost, repeated or different."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from novacron.bench import faults
from novacron.bench.chaos_calls import KINDS, Answer, compare, count, make_calls, read_answer
from novacron.bench.chaos_findings import Journal, RoundRecord, note_pauses, total
from novacron.bench.chaos_rounds import Chaos, Found
from novacron.bench.faults import Injector, Kind, Site
from novacron.bench.http_client import Exchange, HttpClient
from novacron.bench.scenario import ChaosScenario
from novacron.bench.small_disk import small_disk
from novacron.config.server import ServerConfig
from novacron.engine.client import EngineState
from novacron.engine.recovering_client import RecoveringClient
from novacron.errors import ConfigError, RequestFailed
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient, fake_tokenizer
from novacron.testing.serving import serving


def exchange(*events: Any, status: int = 200, error: str | None = None) -> Exchange:
    chunks = [
        (float(place), b"data: %b\n\n" % json.dumps(one).encode())
        for place, one in enumerate(events)
    ]
    return Exchange(0.0, 9.0, status, chunks, error)


def piece(text: str, end: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": end}]}


def usage(num_tokens: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": num_tokens}}


WHOLE = exchange(piece("one "), piece("two "), piece("three", "stop"), usage(3))


def test_how_an_answer_was_cut_does_not_count() -> None:
    other = exchange(piece("one two three", "stop"), usage(3))
    assert compare(read_answer(WHOLE), read_answer(other)) == "same"


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        (exchange(piece("one "), piece("four", "stop"), usage(3)), "differing"),
        (exchange(piece("one two three", "length"), usage(3)), "differing"),
        (exchange(piece("one one two three", "stop"), usage(4)), "duplicated"),
        (exchange(piece("one two three")), "lost"),
        (exchange(piece("one "), {"error": {"message": "gone"}}), "lost"),
        (exchange(status=503), "lost"),
        (exchange(piece("one two three", "stop"), error="the server closed"), "lost"),
        (Exchange(0.0, 1.0, 200, [(0.0, b"data: {not json}\n\n")]), "lost"),
        (exchange(piece("one two three", "stop"), piece("two", "stop", 1), usage(3)), "differing"),
    ],
)
def test_whatever_a_client_would_notice_is_noticed(other: Exchange, outcome: str) -> None:
    assert compare(read_answer(WHOLE), read_answer(other)) == outcome


def test_tools_logprobs_and_vectors_are_compared_as_well() -> None:
    def tool(*parts: str, value: float = -0.5, vector: float = 1.0) -> Answer:
        calls = [
            {"choices": [{"index": 0, "delta": {"tool_calls": [
                {"index": 0, "id": f"drawn-{parts}", "function": {"arguments": part}}
            ]}, "logprobs": {"content": [{"token": part, "logprob": value}]}}]}
            for part in parts
        ]  # fmt: skip
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
        return read_answer(exchange(*calls, end, {"data": [{"embedding": [vector]}]}))

    assert compare(tool("a", "b"), tool("a", "b")) == "same"
    assert compare(tool("a", "b"), tool("a", "c")) == "differing"
    assert compare(tool("a", "b"), tool("a", "b", value=-0.25)) == "differing"
    assert compare(tool("a", "b"), tool("a", "b", vector=2.0)) == "differing"
    assert count(["same", "lost", "same"]) == {
        "same": 2, "lost": 1, "duplicated": 0, "differing": 0,
    }  # fmt: skip


def test_calls_are_of_all_kinds_and_the_same_for_the_same_seed() -> None:
    calls = make_calls(20, 100, seed=5)
    assert {call.kind for call in calls} == set(KINDS)
    assert calls == make_calls(20, 100, seed=5)
    assert calls != make_calls(20, 100, seed=6)
    assert {call.kind for call in make_calls(4, 100, 5, ("chat", "whole"))} == {"chat", "whole"}


def test_a_pause_is_the_silence_after_a_fault_though_last_words_still_arrive() -> None:
    def stream(*arrivals_s: float) -> Exchange:
        return Exchange(0.0, arrivals_s[-1], 200, [(at_s, b"data: {}") for at_s in arrivals_s])

    found = RoundRecord(number=0)
    kill, stop = faults.Fault("kill", 2.0), faults.Fault("stop", 10.0)
    early, whole = stream(0.5, 1.0, 1.5), Exchange(0.0, 9.0, 200, [(9.0, b"{}")])
    streams = [stream(1.0, 1.9, 2.1, 6.1, 9.9, 10.2, 13.2), stream(1.0, 14.0), early, whole]
    note_pauses(found, [kill, stop], streams)
    assert {kind: [round(s, 6) for s in pauses] for kind, pauses in found.pauses_s.items()} == {
        "kill": [4.0], "stop": [3.0], "several": [12.0],
    }  # fmt: skip
    note_pauses(found, [kill], [streams[0]], held=[(5.0, 7.0)])
    assert found.num_left_out == 1, "nobody looked when it went on"
    assert len(found.pauses_s["kill"]) == 1


class Process:
    """A victim that notes what it was sent."""

    def __init__(self, started_s: float = 0.0) -> None:
        self.signals: list[signal.Signals] = []
        self.started_s = started_s

    def send_signal(self, number: signal.Signals) -> None:
        self.signals.append(number)

    def create_time(self) -> float:
        return self.started_s

    def status(self) -> str:
        is_stopped = self.signals[-1:] == [signal.SIGSTOP]
        return psutil.STATUS_STOPPED if is_stopped else psutil.STATUS_ZOMBIE


class Victims(faults.Victims):
    def __init__(self, num_ranks: int, num_engines: int = 1) -> None:
        self.all_engines = [Process(started_s) for started_s in range(num_engines)]
        self.engine = self.all_engines[0]
        self.rank_processes = [Process() for _ in range(num_ranks)]

    def engines(self) -> list[Any]:
        return list(self.all_engines)

    def ranks(self) -> list[Any]:
        return list(self.rank_processes)


async def test_each_kind_of_fault_strikes_as_it_says() -> None:
    victims, waited = Victims(1), []

    async def until_loading() -> None:
        waited.append(len(victims.engine.signals))

    kinds: tuple[Kind, ...] = (
        "kill", "stop", "kill twice", "kill all", "kill rank", "stop rank",
    )  # fmt: skip
    injector = Injector(Site(victims), kinds, 0, until_loading)
    injector.check()
    for _ in kinds:
        await injector.strike()
    kill, stop = signal.SIGKILL, signal.SIGSTOP
    assert victims.engine.signals == [kill, stop, kill, kill, kill]
    assert waited == [3]
    assert victims.rank_processes[0].signals == [kill, stop]
    assert [fault.kind for fault in injector.faults] == list(kinds)
    with pytest.raises(ConfigError, match="tensor_parallel_size"):
        Injector(Site(Victims(0)), kinds, 0, until_loading).check()
    with pytest.raises(ConfigError, match="--hosts"):
        Injector(Site(victims), ("cut",), 0, until_loading).check()
    with pytest.raises(ConfigError, match="--small-disk"):
        Injector(Site(victims), ("full disk",), 0, until_loading).check()


async def test_the_second_of_two_kills_strikes_what_loads_and_only_kill_all_leaves_none() -> None:
    victims, kill = Victims(0, num_engines=2), signal.SIGKILL

    async def restart_the_dead() -> None:
        [dead] = [number for number, one in enumerate(victims.all_engines) if one.signals]
        victims.all_engines[dead] = Process(9.0)

    injector = Injector(Site(victims), ("kill twice", "kill all"), 0, restart_the_dead)
    await injector.strike()
    assert sorted((one.started_s, one.signals) for one in victims.engines())[1] == (9.0, [kill])
    assert sum(len(one.signals) for one in victims.engines()) == 1
    await injector.strike()
    assert all(one.signals[-1] is kill for one in victims.engines())


async def test_the_next_fault_waits_until_what_was_stopped_has_been_replaced() -> None:
    """Else it may strike the only replica that still computes, and the server takes two to."""
    victims = Victims(1)

    async def until_loading() -> None:
        raise AssertionError

    injector = Injector(Site(victims), ("stop rank",), 0, until_loading)
    await injector.strike()
    waiting = asyncio.ensure_future(injector.wait_healed())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    victims.rank_processes[0].send_signal(signal.SIGKILL)
    await waiting


class Link:
    def __init__(self) -> None:
        self.is_silent, self.delay_s, self.num_cuts = False, 0.0, 0

    def cut(self) -> None:
        self.num_cuts += 1


class Host:
    """An engine's host that notes what became of it."""

    def __init__(self) -> None:
        self.link, self.signals, self.num_starts = Link(), list[signal.Signals](), 0
        self.has_ended = False

    def send_signal(self, number: signal.Signals) -> None:
        self.signals.append(number)
        self.has_ended = number is signal.SIGKILL

    async def start(self) -> None:
        self.has_ended = False
        self.num_starts += 1


async def test_what_befalls_hosts_and_links_is_undone_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "_HOLD_S", (0.0, 0.001))
    host: Any = Host()
    kinds: tuple[Kind, ...] = ("kill host", "stop host", "cut", "partition", "slow link")

    async def never() -> None:
        raise AssertionError

    injector = Injector(Site(Victims(0), hosts=[host], patience_s=0.0), kinds, 3, never)
    seen = []
    for _ in kinds:
        assert await injector.strike() is not None
        link = host.link
        seen.append((host.has_ended, link.num_cuts, link.is_silent, link.delay_s > 0))
        await injector.wait_healed()
    assert seen == [
        (True, 0, False, False),
        (False, 0, False, False),
        (False, 1, False, False),
        (False, 1, True, False),
        (False, 1, False, True),
    ]
    assert host.signals == [signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT]
    assert (host.num_starts, host.link.is_silent, host.link.delay_s) == (1, False, 0.0)


def test_a_disk_is_filled_to_the_last_byte_and_emptied(tmp_path: Path) -> None:
    try:
        with small_disk(tmp_path / "disk", 2**20) as disk:
            (disk.folder / "kept").write_bytes(b"before")
            disk.fill()
            with pytest.raises(OSError, match="No space left"):
                (disk.folder / "more").write_bytes(bytes(8192))
            disk.empty()
            (disk.folder / "more").write_bytes(bytes(8192))
            assert (disk.folder / "kept").read_bytes() == b"before"
    except ConfigError:
        pytest.skip("no file system can be mounted here")
    assert not list((tmp_path / "disk").iterdir())


def test_a_fault_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="earthquake"):
        Chaos(HttpClient("x"), "m", Site(Victims(0)), ChaosScenario(faults=("earthquake",)))


SCENARIO = ChaosScenario(num_faults=2, num_streams=6, max_tokens=60, longest_delay=0.0)


class Engine:
    """A server whose engine recites and, when it is struck, dies and comes back."""

    def __init__(self, client: FakeEngineClient) -> None:
        self.client = client

    def send_signal(self, number: signal.Signals) -> None:
        self.client.die()
        asyncio.get_running_loop().call_later(0.1, self.client.enter, EngineState.READY)

    def status(self) -> str:
        return psutil.STATUS_RUNNING


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngineClient]:
    client = FakeEngineClient(
        fake_tokenizer(tmp_path), reply=lambda request: "tell me more " * 9, step_s=0.01
    )
    yield client
    await client.close()


async def run_chaos(
    engine: FakeEngineClient, recovery_timeout: float, monkeypatch: pytest.MonkeyPatch
) -> Found:
    monkeypatch.setattr(Victims, "engines", lambda self: [Engine(engine)])
    client = RecoveringClient(engine, timeout_s=recovery_timeout, most_waiting=32)
    app = build_app(client, ServerConfig(), model_names=("fake",))
    async with serving(app) as url:
        http = HttpClient(url)
        try:
            return await Chaos(http, "fake", Site(Victims(0)), SCENARIO).run()
        finally:
            http.close()


async def test_a_server_that_recovers_passes(
    engine: FakeEngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await run_chaos(engine, 60.0, monkeypatch)
    assert found.unexpected == []
    outcomes = total(found.rounds, "outcomes")
    assert outcomes["same"] == sum(outcomes.values()) >= SCENARIO.num_streams
    assert [fault.kind for fault in found.faults] == ["kill", "stop"]
    assert sum(map(len, total(found.rounds, "pauses_s").values())) > 0
    assert all(record.num_looks for record in found.rounds)


async def test_a_server_that_does_not_recover_fails(
    engine: FakeEngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await run_chaos(engine, 0.0, monkeypatch)
    assert total(found.rounds, "outcomes")["lost"] > 0
    assert all("lost" in line for line in found.unexpected)


async def test_a_server_that_fails_by_itself_is_not_blamed_on_faults(
    engine: FakeEngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.fail_with = "no"
    with pytest.raises(RequestFailed, match="Without faults"):
        await run_chaos(engine, 60.0, monkeypatch)


def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    path, scenario = tmp_path / "journal", {"seed": 3}
    first = Journal(path, scenario, ("a=1",))
    records = [
        RoundRecord(number=n, faults=["kill"], pauses_s={"kill": [0.5]}, outcomes={"same": 2})
        for n in range(2)
    ]
    for record in records:
        first.add(record)
    with path.open("ab") as file:
        file.write(b'{"number":2,"faults":["ki')  # as a power cut leaves it
    again = Journal(path, scenario, ("a=1",))
    assert again.rounds == records
    assert total(again.rounds, "pauses_s") == {"kill": [0.5, 0.5]}
    assert total(again.rounds, "outcomes") == {"same": 4}
    with pytest.raises(ConfigError, match="other settings"):
        Journal(path, {"seed": 4}, ("a=1",))
