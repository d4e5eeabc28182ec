from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from novacron.engine.client import EngineClient, EngineState
from novacron.engine.tokenization import Tokenizer
from novacron.errors import EngineDead, InvalidRequest, NotReady, Overloaded, PromptTooLong
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.testing.fake_engine_client import FakeEngineClient, fake_tokenizer
from novacron.testing.waiting import until


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    return fake_tokenizer(folder)


@pytest.fixture
def client(tokenizer: Tokenizer) -> FakeEngineClient:
    return FakeEngineClient(tokenizer)


def request(request_id: str = "a", **sampling: object) -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=(5, 6),
        sampling=SamplingParams(**sampling),  # type: ignore[arg-type]
        arrival_time_s=0.0,
    )


async def outputs_of(client: EngineClient, *requests: Request) -> list[RequestOutput]:
    return [output async for output in client.generate(requests)]


async def test_it_recites_the_reply_and_ends(client: FakeEngineClient) -> None:
    outputs = await outputs_of(client, request())
    assert "".join(output.text for output in outputs) == "The answer is 42."
    assert [output.finished for output in outputs].count(True) == 1
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert client.stats.num_running == 0


async def test_limits_and_stops_hold(client: FakeEngineClient) -> None:
    cut = await outputs_of(client, request(max_tokens=2))
    assert cut[-1].finish_reason is FinishReason.LENGTH
    assert cut[-1].num_output_tokens == 2
    stopped = await outputs_of(client, request(stop=("is",)))
    assert "".join(output.text for output in stopped) == "The answer "
    assert stopped[-1].stop_reason == "is"
    assert client.stats.num_running == 0
    endless = await outputs_of(client, request(max_tokens=40, ignore_eos=True))
    assert endless[-1].num_output_tokens == 40


async def test_it_refuses_as_the_real_one_does(client: FakeEngineClient) -> None:
    with pytest.raises(PromptTooLong):
        await outputs_of(client, request(max_tokens=2047))
    with pytest.raises(InvalidRequest):
        await outputs_of(client, request(temperature=-1.0))
    client.max_live = 1
    with pytest.raises(Overloaded):
        await outputs_of(client, request("a"), request("b"))
    client.enter(EngineState.DRAINING)
    with pytest.raises(NotReady):
        await outputs_of(client, request())


async def test_death_fails_what_runs(client: FakeEngineClient) -> None:
    running = asyncio.create_task(outputs_of(client, request(ignore_eos=True)))
    await until(lambda: client.submitted)
    client.die()
    with pytest.raises(EngineDead):
        await running
    assert (client.state, client.num_restarts) == (EngineState.LOADING, 1)


async def test_close_aborts_what_runs(client: FakeEngineClient) -> None:
    running = asyncio.create_task(outputs_of(client, request(ignore_eos=True)))
    await until(lambda: client.submitted)
    await client.close()
    assert (await running)[-1].finish_reason is FinishReason.ABORT
    assert client.aborted == ["a"]


async def test_drain_waits_for_what_runs(client: FakeEngineClient) -> None:
    running = asyncio.create_task(outputs_of(client, request(max_tokens=20)))
    await until(lambda: client.submitted)
    assert await client.drain(5.0)
    assert (await running)[-1].finished


async def test_unload_and_load(client: FakeEngineClient) -> None:
    states: list[EngineState] = []
    client.on_state_change(states.append)
    await client.unload(1.0)
    await client.load()
    assert states == [
        EngineState.DRAINING,
        EngineState.UNLOADED,
        EngineState.LOADING,
        EngineState.READY,
    ]
