"""ProcessClient over a real engine process: answers, aborts, death, restart, drain, bad files."""

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from novacron.config.engine import EngineConfig, WatchConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.engine.client import EngineState
from novacron.engine.llm import LLM
from novacron.engine.process_client import ProcessClient
from novacron.errors import (
    ConfigError,
    EngineDead,
    ModelLoadError,
    NotReady,
    Overloaded,
    PromptTooLong,
)
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.testing.tiny_models import make_tiny_model

PATIENCE_S = 60.0
LONG = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)
SHORT = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"))


def engine_config(model: Path, **scheduler: int) -> EngineConfig:
    return EngineConfig(
        model=ModelConfig(model=str(model), dtype="float32", num_threads=1),
        scheduler=SchedulerConfig(**{"max_num_seqs": 4, **scheduler}),  # type: ignore[arg-type]
    )


@pytest.fixture
async def client(model: Path) -> AsyncIterator[ProcessClient]:
    client = ProcessClient(engine_config(model, max_queued_requests=2), model)
    await client.start()
    await asyncio.wait_for(client.wait_ready(), PATIENCE_S)
    yield client
    await client.close()


def make_request(request_id: str, sampling: SamplingParams, num_tokens: int = 20) -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=tuple(range(10, 10 + num_tokens)),
        sampling=sampling,
        arrival_time_s=time.monotonic(),
    )


async def run(client: ProcessClient, *requests: Request) -> list[RequestOutput]:
    return await read_to_the_end(client.generate(requests))


async def read_to_the_end(stream: AsyncIterator[RequestOutput]) -> list[RequestOutput]:
    return [output async for output in stream]


def token_ids(outputs: list[RequestOutput], index: int = 0) -> tuple[int, ...]:
    return sum((output.token_ids for output in outputs if output.index == index), ())


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (nothing tells when statistics change)
            await asyncio.sleep(0.005)


async def test_answers_equal_those_of_the_offline_engine(
    client: ProcessClient, model: Path
) -> None:
    offline = LLM(str(model), dtype="float32", num_threads=1, max_num_seqs=4)
    prompts = [list(range(10, 30)), list(range(40, 45))]
    expected = [output.token_ids for output in offline.generate(prompts, SHORT)]
    requests = [
        Request(
            request_id=str(place),
            prompt_token_ids=tuple(prompt),
            sampling=SHORT,
            arrival_time_s=time.monotonic(),
        )
        for place, prompt in enumerate(prompts)
    ]
    outputs = await run(client, *requests)
    assert [token_ids(outputs, index) for index in (0, 1)] == expected
    assert sum(output.finished for output in outputs) == 2


async def test_death_fails_who_waits_and_the_next_engine_answers(client: ProcessClient) -> None:
    before = token_ids(await run(client, make_request("before", SHORT)))
    states: list[EngineState] = []
    client.on_state_change(states.append)
    stream = client.generate((make_request("victim", LONG),))
    await anext(stream)
    assert client.engine_pid is not None
    os.kill(client.engine_pid, signal.SIGKILL)
    with pytest.raises(EngineDead):
        await asyncio.wait_for(read_to_the_end(stream), PATIENCE_S)
    assert client.state is EngineState.LOADING
    with pytest.raises(NotReady):
        await run(client, make_request("early", SHORT))
    await asyncio.wait_for(client.wait_ready(), PATIENCE_S)
    assert states == [EngineState.LOADING, EngineState.READY]
    assert client.num_restarts == 1
    assert token_ids(await run(client, make_request("after", SHORT))) == before


async def test_closing_the_stream_aborts_in_the_engine(client: ProcessClient) -> None:
    stream = client.generate((make_request("left", LONG),))
    await anext(stream)
    await stream.aclose()
    await run(client, make_request("next", SHORT))
    assert client.stats.num_running == 0
    assert client.stats.num_used_blocks == 0


async def test_abort_ends_the_stream_with_abort(client: ProcessClient) -> None:
    stream = client.generate((make_request("unwanted", LONG),))
    await anext(stream)
    assert await client.abort("unwanted")
    outputs = await read_to_the_end(stream)
    assert outputs[-1].finish_reason is FinishReason.ABORT
    assert not await client.abort("unwanted")


async def test_a_full_queue_refuses(client: ProcessClient) -> None:
    streams = [client.generate((make_request(str(place), LONG),)) for place in range(6)]
    first = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await run(client, make_request("one too many", SHORT))
    await asyncio.gather(*first)
    for stream in streams:
        await stream.aclose()
    assert len(await run(client, make_request("room again", SHORT))) > 0


async def test_too_long_a_prompt_names_both_numbers(client: ProcessClient) -> None:
    with pytest.raises(PromptTooLong, match=r"600 .* 512"):
        await run(
            client,
            Request(
                request_id="long",
                prompt_token_ids=(5,) * 600,
                sampling=SHORT,
                arrival_time_s=0.0,
            ),
        )


async def test_drain_finishes_what_runs_and_refuses_the_rest(client: ProcessClient) -> None:
    running = asyncio.create_task(run(client, make_request("last", LONG)))
    await wait_until(lambda: client.stats.num_running == 1)
    draining = asyncio.create_task(client.drain(PATIENCE_S))
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await run(client, make_request("late", SHORT))
    assert await draining
    assert len(token_ids(await running)) == LONG.max_tokens


async def test_unload_frees_the_process_and_load_brings_it_back(client: ProcessClient) -> None:
    before = token_ids(await run(client, make_request("before", SHORT)))
    await client.unload(PATIENCE_S)
    assert client.state is EngineState.UNLOADED
    assert client.engine_pid is None
    with pytest.raises(NotReady, match="unloaded"):
        await run(client, make_request("while unloaded", SHORT))
    await asyncio.wait_for(client.load(), PATIENCE_S)
    assert token_ids(await run(client, make_request("after", SHORT))) == before


async def test_a_broken_checkpoint_is_reported_once_with_its_file(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    client = ProcessClient(engine_config(folder), folder)
    await client.start()
    with pytest.raises(ModelLoadError, match=r"model\.safetensors"):
        await asyncio.wait_for(client.wait_ready(), PATIENCE_S)
    assert client.state is EngineState.DEAD
    await client.close()


async def test_a_watched_engine_scores_answers_when_it_is_idle(model: Path, tmp_path: Path) -> None:
    config = EngineConfig(
        model=ModelConfig(
            model=str(model), dtype="float32", num_threads=1, quantization="int4",
            cache_dir=str(tmp_path),
        ),
        watch=WatchConfig(quality_watch=1.0, quality_floor=0.0),
    )  # fmt: skip
    plain = dataclasses.replace(config, watch=WatchConfig())
    answers = {}
    for name, one in (("watched", config), ("plain", plain)):
        client = ProcessClient(one, model)
        await client.start()
        await asyncio.wait_for(client.wait_ready(), PATIENCE_S)
        requests = tuple(make_request(str(number), SHORT) for number in range(3))
        tokens: dict[int, tuple[int, ...]] = {}
        for output in await run(client, *requests):
            tokens[output.index] = tokens.get(output.index, ()) + output.token_ids
        answers[name] = tokens
        if name == "watched":
            await wait_until(lambda c=client: c.stats.watch.num_scored == 3)  # type: ignore[misc]
            watch = client.stats.watch
            assert watch is not None
            assert watch.quality is not None
            assert (watch.num_dropped, watch.num_alerts) == (0, 0)
            assert watch.kl is not None
            assert watch.kl > 0
        else:
            assert client.stats.watch is None
        await client.close()
    assert answers["watched"] == answers["plain"]


async def test_a_watch_that_cannot_be_kept_is_refused_at_start(model: Path, tmp_path: Path) -> None:
    config = EngineConfig(
        model=ModelConfig(model=str(model), dtype="float32", num_threads=1, packed_cache_size=1),
        watch=WatchConfig(quality_watch=1.0),
    )
    client = ProcessClient(config, model)
    await client.start()
    with pytest.raises(ConfigError, match="packed_cache_size is 1"):
        await asyncio.wait_for(client.wait_ready(), PATIENCE_S)
    await client.close()
