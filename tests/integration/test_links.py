"""Engines of other hosts: real engine processes behind real, encrypted links, over a network that
fails. They recite instead of computing, so that each test takes a moment."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from novacron.bench.faulty_link import FaultyLink
from novacron.cluster.replicas_client import ReplicasClient
from novacron.cluster.same_model import SameModel
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.engine.client import DrainOptions, EngineState
from novacron.engine.engine_process import EngineProcess
from novacron.engine.link import linked_engine
from novacron.engine.link.address import EngineAddress
from novacron.engine.link.engine_host import EngineHost
from novacron.engine.link.keys import KeyPair
from novacron.engine.link.linked_engine import LinkedEngine
from novacron.engine.process_client import ProcessClient
from novacron.engine.recovering_client import RecoveringClient
from novacron.errors import ConfigError, ModelLoadError
from novacron.records import wire
from novacron.records.request import Request, SamplingParams
from novacron.testing.reciting_engine import token_at
from novacron.testing.tiny_models import write_tiny_tokenizer

PATIENCE_S = 60.0
TIMEOUT_S = 1.0
NUM_TOKENS = 120
NUM_CALLS = 6
OURS = KeyPair.make()
MODULE = "novacron.testing.reciting_engine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return folder


@asynccontextmanager
async def running_host(
    folder: Path, *, version: str = "", keys: KeyPair | None = None
) -> AsyncIterator[EngineHost]:
    """`version`: of the model, as its engines will tell."""

    def prepare(config: EngineConfig) -> tuple[EngineConfig, Path]:
        return EngineConfig(model=ModelConfig(chat_template=version)), folder

    host = EngineHost(
        "tcp://127.0.0.1:0",
        keys or KeyPair.make(),
        [OURS.public],
        prepare,
        make_process=partial(EngineProcess, module=MODULE),
    )
    running = asyncio.create_task(host.run())
    await asyncio.sleep(0)  # a task that has not begun does not clean up
    try:
        yield host
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Network:
    """Hosts, the links to them, and a client of their engines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: list[EngineHost] = []
        self.links: list[FaultyLink] = []
        self.replicas: ReplicasClient | None = None
        self.same = SameModel()

    def address(self, number: int) -> EngineAddress:
        key = self.hosts[number].address.public_key
        return EngineAddress("127.0.0.1", self.links[number].port, key)

    def client(
        self,
        address: EngineAddress,
        *,
        keys: KeyPair = OURS,
        server: str = "server",
    ) -> ProcessClient:
        async def find() -> EngineAddress:
            return address

        def make_process(config: EngineConfig, path: Path) -> LinkedEngine:
            return LinkedEngine(config, find=find, keys=keys, server=server, timeout_s=TIMEOUT_S)

        config = EngineConfig(model=ModelConfig(tokenizer=str(self.folder)))
        return ProcessClient(config, self.folder, make_process=make_process, check=self.same.check)

    def all_as_one(self) -> RecoveringClient:
        addresses = [self.address(number) for number in range(len(self.hosts))]
        self.replicas = ReplicasClient(
            EngineConfig(model=ModelConfig(data_parallel_size=len(addresses))),
            lambda name, _: self.client(addresses[int(name[-1])]),
            apart=True,
        )
        return RecoveringClient(self.replicas, timeout_s=PATIENCE_S, most_waiting=1000)

    def states(self) -> list[EngineState]:
        assert self.replicas is not None
        return [one.state for one in self.replicas.replicas]

    async def until_all_ready(self) -> None:
        await until(lambda: set(self.states()) == {EngineState.READY}, PATIENCE_S)


@asynccontextmanager
async def network(folder: Path, num_hosts: int, versions: str = "11111") -> AsyncIterator[Network]:
    async with AsyncExitStack() as stack:
        net = Network(folder)
        for number in range(num_hosts):
            host = running_host(folder, version=versions[number])
            net.hosts.append(await stack.enter_async_context(host))
            net.links.append(stack.enter_context(FaultyLink(net.hosts[-1].port)))
        yield net


async def until(condition: Callable[[], object], timeout_s: float) -> None:
    """Looks now and then, so that the engines beside us have a core."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)


def engine_processes() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if MODULE in one.cmdline()]


async def call(client: RecoveringClient | ProcessClient, number: int) -> list[int]:
    request = Request(
        request_id=f"call-{number}",
        prompt_token_ids=(number + 1, 5),
        sampling=SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True),
        arrival_time_s=0.0,
    )
    tokens: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        async for output in client.generate((request,)):
            tokens += output.token_ids
    return tokens


def expected(number: int) -> list[int]:
    return [token_at((number + 1, 5), position) for position in range(NUM_TOKENS)]


async def check_calls_while(
    client: RecoveringClient, net: Network, fault: Callable[[], object]
) -> None:
    """Calls run on all hosts, `fault` is done to the second one: every token is as it would be."""
    await net.until_all_ready()
    calls = [asyncio.create_task(call(client, number)) for number in range(NUM_CALLS)]
    replicas = net.replicas
    assert replicas is not None
    await until(lambda: all(one.stats.num_running for one in replicas.replicas), PATIENCE_S)
    fault()
    tokens = await asyncio.gather(*calls)
    assert tokens == [expected(number) for number in range(NUM_CALLS)]


@pytest.mark.parametrize("fault", ["kill", pytest.param("cut", marks=pytest.mark.slow), "silent"])
async def test_calls_go_on_elsewhere_and_the_host_comes_back(fault: str, folder: Path) -> None:
    async with network(folder, 2) as net:
        client = net.all_as_one()
        await client.start()
        await net.until_all_ready()
        faults = {
            "kill": lambda: engine_processes()[1].kill(),
            "cut": net.links[1].cut,
            "silent": partial(setattr, net.links[1], "is_silent", True),
        }
        await check_calls_while(client, net, faults[fault])
        if fault == "silent":  # the host has noticed, too, and nobody computes for no one
            await until(lambda: len(engine_processes()) == 1, PATIENCE_S)
            net.links[1].is_silent = False
        await net.until_all_ready()
        assert len(engine_processes()) == 2
        assert await call(client, 3) == expected(3)
        await client.close()


@pytest.mark.slow
async def test_a_slow_link_only_takes_longer(folder: Path) -> None:
    async with network(folder, 1) as net:
        net.links[0].delay_s = 0.05
        client = net.all_as_one()
        await client.start()
        await net.until_all_ready()
        tokens = await asyncio.gather(*(call(client, number) for number in range(NUM_CALLS)))
        assert tokens == [expected(number) for number in range(NUM_CALLS)]
        assert client.num_restarts == 0
        await client.close()


@pytest.mark.slow
async def test_a_host_that_comes_late_is_waited_for(folder: Path) -> None:
    """The server is up with the one that is there."""
    keys = KeyPair.make()
    async with AsyncExitStack() as stack, network(folder, 1) as net:
        async with running_host(folder, version="1", keys=keys) as gone:
            port = gone.port
        net.hosts.append(gone)
        net.links.append(stack.enter_context(FaultyLink(port)))
        client = net.all_as_one()
        await client.start()
        await client.wait_ready()
        assert net.states() == [EngineState.READY, EngineState.LOADING]
        assert await call(client, 1) == expected(1)
        late = await stack.enter_async_context(running_host(folder, version="1", keys=keys))
        net.links[1].redirect(late.port)
        await net.until_all_ready()
        await client.close()


async def test_drained_and_back_again(folder: Path) -> None:
    async with network(folder, 2) as net:
        client = net.all_as_one()
        await client.start()
        await net.until_all_ready()
        assert await client.drain_replica("replica-1", PATIENCE_S, DrainOptions())
        await until(lambda: len(engine_processes()) == 1, PATIENCE_S)
        await client.resume_replica("replica-1")
        await net.until_all_ready()
        assert [one.epoch for one in client.replicas] == [0, 1]
        await client.close()
        await until(lambda: not engine_processes(), PATIENCE_S)


async def failure_of(client: ProcessClient) -> Exception:
    await client.start()
    with pytest.raises((ConfigError, ModelLoadError)) as caught:
        await asyncio.wait_for(client.wait_ready(), PATIENCE_S)
    await client.close()
    return caught.value


async def test_keys_that_do_not_fit_are_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with network(folder, 1) as net:
        stranger = KeyPair.make()
        error = await failure_of(net.client(net.address(0), keys=stranger))
        assert "does not allow our key" in str(error)
        other = EngineAddress("127.0.0.1", net.links[0].port, stranger.public)
        client = net.client(other)
        await client.start()
        await until(lambda: "no novacron engine with the key" in caplog.text, PATIENCE_S)
        assert client.state is EngineState.LOADING
        await client.close()
        assert not engine_processes()


async def test_nothing_readable_passes(folder: Path) -> None:
    """Neither prompts nor tokens nor settings: what a wire tap sees has no known words in it."""
    async with network(folder, 1) as net:
        seen = bytearray()
        net.links[0].tap = seen.extend
        client = net.client(net.address(0), server="a name in clear text")
        await client.start()
        await client.wait_ready()
        await call(client, 1)
        await client.close()
        assert len(seen) > 4096
        assert b"CURVE" in seen  # the greeting is readable, so the tap works
        for word in (b"clear text", b"call-1", b"max_num_seqs", b"Outputs", b"float32"):
            assert word not in seen


async def test_another_version_is_refused_with_a_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network(folder, 1) as net:
        client = net.client(net.address(0))
        old = linked_engine.Outgoing.seal

        def as_a_later_version(self: linked_engine.Outgoing, *args: object) -> bytes:
            return b"\xff" + old(self, *args)[1:]  # type: ignore[arg-type]

        monkeypatch.setattr(linked_engine.Outgoing, "seal", as_a_later_version)
        error = await failure_of(client)
        assert f"{wire.WIRE_VERSION}" in str(error)
        assert "version" in str(error)


async def test_other_weights_are_not_served_beside_ours(folder: Path) -> None:
    async with network(folder, 2, versions="12") as net:
        client = net.all_as_one()
        await client.start()
        await until(lambda: EngineState.DEAD in net.states(), PATIENCE_S)
        await client.wait_ready()
        assert sorted(net.states()) == [EngineState.DEAD, EngineState.READY]
        assert await call(client, 1) == expected(1)
        await until(lambda: len(engine_processes()) == 1, PATIENCE_S)
        await client.close()


async def test_a_host_serves_one_server_and_then_the_next(folder: Path) -> None:
    async with network(folder, 1) as net:
        first = net.client(net.address(0), server="first")
        await first.start()
        await first.wait_ready()
        second = net.client(net.address(0), server="second")
        await second.start()
        running = asyncio.create_task(call(first, 1))
        assert await running == expected(1)  # nobody takes it away
        assert second.state is EngineState.LOADING
        await first.close()
        await asyncio.wait_for(second.wait_ready(), PATIENCE_S)
        assert await call(second, 2) == expected(2)
        await second.close()


async def test_a_stopped_engine_is_killed_by_what_its_host_sees(folder: Path) -> None:
    async with network(folder, 1) as net:
        client = net.all_as_one()
        await client.start()
        await net.until_all_ready()
        [process] = engine_processes()
        os.kill(process.pid, signal.SIGSTOP)
        handle = net.replicas._replicas["replica-0"].client._engine  # type: ignore[union-attr]
        await until(lambda: handle.vital_signs(()).stopped_pids == (process.pid,), PATIENCE_S)
        handle.kill()
        await until(lambda: client.num_restarts == 1, PATIENCE_S)
        await net.until_all_ready()
        await client.close()
