"""RecoveringClient over engines that recite, and die: streams go on as if nothing had been."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.config.variants import Variant
from novacron.engine.client import EngineState
from novacron.engine.recovering_client import RecoveringClient
from novacron.engine.tokenization import Tokenizer
from novacron.engine.variant_engines import variant_engines
from novacron.engine.variants_client import VariantsClient
from novacron.errors import (
    EngineDead,
    InvalidRequest,
    NotReady,
    NovaCronError,
    Overloaded,
    PoisonousRequest,
)
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.testing.fake_engine_client import FakeEngineClient, fake_tokenizer
from novacron.testing.waiting import until

TEXT = "The quick brown fox jumps over the lazy dog, and then it does so once again. " * 3
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return fake_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def engine(tokenizer: Tokenizer) -> FakeEngineClient:
    return FakeEngineClient(tokenizer, reply=lambda request: TEXT)


@pytest.fixture
async def client(engine: FakeEngineClient) -> AsyncIterator[RecoveringClient]:
    client = RecoveringClient(engine, timeout_s=PATIENCE_S, most_waiting=40)
    yield client
    await client.close()


def request(request_id: str = "r", *, pooled: bool = False, **sampling: object) -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=(1, 2, 3, 4),
        sampling=SamplingParams(**{"max_tokens": 60, **sampling}),  # type: ignore[arg-type]
        arrival_time_s=0.0,
        pooling="mean" if pooled else None,
    )


class Reader:
    """Reads one call; `joined` is what its caller has at the end."""

    def __init__(self, client: RecoveringClient, *requests: Request) -> None:
        self.outputs: list[RequestOutput] = []
        self.task = asyncio.create_task(self._read(client, requests))

    async def _read(self, client: RecoveringClient, requests: tuple[Request, ...]) -> None:
        async for output in client.generate(requests):
            self.outputs.append(output)

    @property
    def num_tokens(self) -> int:
        return sum(len(output.token_ids) for output in self.outputs)

    async def joined(self) -> dict[int, tuple[object, ...]]:
        await asyncio.wait_for(self.task, PATIENCE_S)
        return {
            index: self._joined([one for one in self.outputs if one.index == index])
            for index in {output.index for output in self.outputs}
        }

    async def failure(self) -> NovaCronError:
        with pytest.raises(NovaCronError) as caught:
            await asyncio.wait_for(self.task, PATIENCE_S)
        return caught.value

    def _joined(self, outputs: list[RequestOutput]) -> tuple[object, ...]:
        assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
        last = outputs[-1]
        return (
            last.request_id,
            "".join(output.text for output in outputs),
            sum((output.token_ids for output in outputs), ()),
            sum((output.logprobs for output in outputs), ()),
            sum((output.prompt_logprobs for output in outputs), ()),
            next((output.embedding for output in outputs if output.embedding), None),
            (last.finish_reason, last.stop_reason),
            (last.num_prompt_tokens, last.num_output_tokens, last.num_cached_tokens),
        )


def die_when(engine: FakeEngineClient, condition: Callable[[], bool]) -> asyncio.Task[None]:
    """Kill the engine once `condition` holds, and start it again a moment later."""

    async def run() -> None:
        await until(condition, PATIENCE_S)
        engine.die()
        await asyncio.sleep(0)
        engine.enter(EngineState.READY)

    return asyncio.create_task(run())


CALLS: dict[str, Callable[[], tuple[Request, ...]]] = {
    "plain": lambda: (request(),),
    "several": lambda: tuple(request(f"r{place}", max_tokens=20 + 9 * place) for place in range(4)),
    "logprobs": lambda: (request(logprobs=2, prompt_logprobs=1),),
    "stop string": lambda: (request(stop=("lazy dog",)),),
    "stop string, late": lambda: (request(stop=("quick", "again"), min_tokens=12, max_tokens=99),),
    "no end": lambda: (request(max_tokens=None, ignore_eos=False),),
    "embedding": lambda: (request(pooled=True),),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_gets_the_same_however_many_engines_die_under_it(
    client: RecoveringClient, engine: FakeEngineClient, name: str
) -> None:
    expected = await Reader(client, *CALLS[name]()).joined()
    for places in ((0,), (1,), (7,), (3, 25), (1, 20, 40)):
        reader = Reader(client, *CALLS[name]())
        for place in places:
            death = die_when(
                engine,
                lambda r=reader, p=place: r.num_tokens >= p or r.task.done(),  # type: ignore[misc]
            )
            await death
        assert await reader.joined() == expected


async def test_the_pause_is_told_once_and_the_seed_and_what_was_cached_stay(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    reader = Reader(client, request())
    await die_when(engine, lambda: reader.num_tokens >= 5)
    await reader.joined()
    pauses = [output.pause_s for output in reader.outputs if output.pause_s is not None]
    assert len(pauses) == 1
    assert pauses[0] > 0
    first, second = engine.submitted
    assert first.sampling.seed == second.sampling.seed is not None
    assert (
        second.output_token_ids
        == sum((output.token_ids for output in reader.outputs), ())[: len(second.output_token_ids)]
    )
    assert len(second.output_token_ids) >= 5


async def test_an_engine_that_is_still_ending_the_first_life_does_not_see_its_id_again(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    reader = Reader(client, request("mine"))
    await die_when(engine, lambda: reader.num_tokens >= 5)
    await reader.joined()
    assert len({one.request_id for one in engine.submitted}) == 2
    assert {output.request_id for output in reader.outputs} == {"mine"}


async def test_new_calls_wait_for_a_restart_but_not_for_a_first_start(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    engine.die()
    reader = Reader(client, request())
    await until(lambda: client.stats.num_waiting == 1, PATIENCE_S)
    assert client.state is EngineState.LOADING
    engine.enter(EngineState.READY)
    await reader.joined()
    engine.enter(EngineState.UNLOADED)
    assert isinstance(await Reader(client, request()).failure(), NotReady)
    engine.enter(EngineState.LOADING)
    assert isinstance(await Reader(client, request()).failure(), NotReady)


async def test_no_more_wait_than_may(client: RecoveringClient, engine: FakeEngineClient) -> None:
    engine.die()
    readers = [Reader(client, request(str(place))) for place in range(40)]
    await until(lambda: client.stats.num_waiting == 40, PATIENCE_S)
    assert isinstance(await Reader(client, request("more")).failure(), Overloaded)
    engine.enter(EngineState.READY)
    await asyncio.gather(*(reader.joined() for reader in readers))


async def test_the_id_of_a_call_that_waits_is_in_use(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    engine.die()
    reader = Reader(client, request())
    await until(lambda: client.stats.num_waiting == 1, PATIENCE_S)
    assert isinstance(await Reader(client, request()).failure(), InvalidRequest)
    engine.enter(EngineState.READY)
    await reader.joined()


async def test_an_engine_that_stays_away_is_not_waited_for_for_ever(
    engine: FakeEngineClient,
) -> None:
    for timeout_s, words in ((0.05, "recovery_timeout"), (0.0, "ended unexpectedly")):
        client = RecoveringClient(engine, timeout_s=timeout_s, most_waiting=8)
        reader = Reader(client, request())
        await until(lambda r=reader: r.num_tokens >= 3, PATIENCE_S)  # type: ignore[misc]
        engine.die()
        failure = await reader.failure()
        assert isinstance(failure, EngineDead)
        assert words in str(failure)
        engine.enter(EngineState.READY)


async def test_an_engine_that_ends_for_good_ends_its_calls(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    readers = [Reader(client, request(str(place))) for place in range(3)]
    await until(lambda: readers[0].num_tokens >= 3, PATIENCE_S)
    engine.die()
    late = Reader(client, request("late"))
    await until(lambda: client.stats.num_waiting == 4, PATIENCE_S)
    engine.die(for_good=True)
    for reader in (*readers, late):
        assert isinstance(await reader.failure(), EngineDead)


async def test_a_call_that_nobody_reads_any_more_is_not_taken_up_again(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    reader = Reader(client, request())
    await until(lambda: reader.num_tokens >= 3, PATIENCE_S)
    engine.die()
    await until(lambda: client.stats.num_waiting == 1, PATIENCE_S)
    reader.task.cancel()
    await asyncio.gather(reader.task, return_exceptions=True)
    engine.enter(EngineState.READY)
    await Reader(client, request("next")).joined()
    assert [one.request_id for one in engine.submitted] == ["r", "next"]


async def test_what_is_aborted_while_it_waits_ends_there_and_its_siblings_go_on(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    reader = Reader(client, request("a"), request("b"))
    await until(lambda: reader.num_tokens >= 6, PATIENCE_S)
    engine.die()
    await until(lambda: client.stats.num_waiting == 2, PATIENCE_S)
    assert await client.abort("a")
    assert not await client.abort("a")
    await until(lambda: reader.outputs[-1].finish_reason is FinishReason.ABORT, PATIENCE_S)
    engine.enter(EngineState.READY)
    joined = await reader.joined()
    assert joined[0][6] == (FinishReason.ABORT, None)
    assert joined[1][6] == (FinishReason.LENGTH, None)
    assert await client.abort("b") is False


async def test_a_running_request_of_a_second_life_can_be_aborted(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    engine.step_s = 0.001
    reader = Reader(client, request(max_tokens=2000, ignore_eos=True))
    await die_when(engine, lambda: reader.num_tokens >= 3)
    await until(lambda: len(engine.submitted) == 2, PATIENCE_S)
    await until(lambda: reader.num_tokens >= 10, PATIENCE_S)
    assert await client.abort("r")
    assert (await reader.joined())[0][6] == (FinishReason.ABORT, None)


async def test_draining_goes_through_a_death(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    states: list[EngineState] = []
    client.on_state_change(states.append)
    reader = Reader(client, request())
    await until(lambda: reader.num_tokens >= 3, PATIENCE_S)
    draining = asyncio.create_task(client.drain(PATIENCE_S))
    await until(lambda: client.state is EngineState.DRAINING, PATIENCE_S)
    engine.die()
    await until(lambda: client.stats.num_waiting == 1, PATIENCE_S)
    assert client.state is EngineState.DRAINING
    assert isinstance(await Reader(client, request("late")).failure(), NotReady)
    engine.enter(EngineState.READY)
    with pytest.raises(NotReady):
        await client.wait_ready()
    assert (await reader.joined())[0][6] == (FinishReason.LENGTH, None)
    assert await draining
    assert states == [EngineState.DRAINING]


async def test_draining_gives_up_in_time(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    reader = Reader(client, request())
    await until(lambda: reader.num_tokens >= 3, PATIENCE_S)
    engine.die()
    assert not await client.drain(0.01)
    await client.close()
    await reader.failure()


async def test_unload_waits_for_calls_and_load_for_unload(
    client: RecoveringClient, engine: FakeEngineClient
) -> None:
    reader = Reader(client, request())
    await until(lambda: reader.num_tokens >= 3, PATIENCE_S)
    unloading = asyncio.create_task(client.unload(PATIENCE_S))
    await until(lambda: client.state is EngineState.DRAINING, PATIENCE_S)
    loading = asyncio.create_task(client.load())
    await reader.joined()
    await unloading
    await asyncio.wait_for(loading, PATIENCE_S)
    assert client.state is EngineState.READY
    await Reader(client, request("again")).joined()


async def test_a_call_goes_on_in_the_precision_in_which_it_began(tokenizer: Tokenizer) -> None:
    engines: dict[str, FakeEngineClient] = {}

    def make(config: EngineConfig) -> FakeEngineClient:
        name = config.model.quantization
        engines[name] = FakeEngineClient(
            tokenizer,
            reply=lambda request: f"computed in {name}, which is what was asked for",
            quantization=name,
            weight_bytes={"int8": 9, "none": 16}[name],
        )
        return engines[name]

    config = EngineConfig(model=ModelConfig(quantization="int8", variants=("none",)))
    below = VariantsClient(variant_engines(config, Variant("int8")), make, config.watch)
    client = RecoveringClient(below, timeout_s=PATIENCE_S, most_waiting=8)
    await client.start()
    await client.wait_ready()
    await until(lambda: len(engines) == 2, PATIENCE_S)
    for name, asked in (("int8", ""), ("none", "none"), ("int8", "int8")):
        one = msgspec.structs.replace(request(), variant=asked)
        expected = await Reader(client, one).joined()
        reader = Reader(client, one)
        engine = engines[name]
        await until(lambda r=reader: r.num_tokens >= 5, PATIENCE_S)  # type: ignore[misc]
        engine.die()
        await until(lambda: client.stats.num_waiting == 1, PATIENCE_S)
        engine.enter(EngineState.READY)
        assert await reader.joined() == expected
        assert f"computed in {name}" in str(expected[0][1])
    engine = engines["none"]
    reader = Reader(client, msgspec.structs.replace(request(), variant="none"))
    await until(lambda: reader.num_tokens >= 5, PATIENCE_S)
    engine.die(for_good=True)  # the main one goes on, but that is another model's precision
    assert isinstance(await reader.failure(), EngineDead)
    await Reader(client, request()).joined()
    await client.close()


class Poisoned(FakeEngineClient):
    """Dies whenever a request whose id begins so has `place` tokens, and comes back by itself."""

    place = 5

    async def generate(self, requests: tuple[Request, ...]) -> AsyncIterator[RequestOutput]:  # type: ignore[override]
        counts = {one.request_id: len(one.output_token_ids) for one in requests}
        async for output in super().generate(requests):
            yield output
            counts[output.request_id] += len(output.token_ids)
            deadly = output.request_id.startswith("poison")
            if deadly and counts[output.request_id] >= self.place and self.state is READY:
                self.die()
                asyncio.get_running_loop().call_later(0.05, self.enter, READY)


READY = EngineState.READY


@pytest.mark.parametrize("place", [0, 5, 40])
async def test_exactly_the_poisonous_are_failed_and_the_others_get_what_they_would_have(
    tokenizer: Tokenizer, place: int
) -> None:
    engine = Poisoned(tokenizer, reply=lambda request: TEXT)
    engine.place = place
    client = RecoveringClient(engine, timeout_s=PATIENCE_S, most_waiting=40)
    expected = (await Reader(client, request("good")).joined())[0][1:]
    names = ["a", "poison-1", "b", "c", "poison-2"]
    readers = {name: Reader(client, request(name)) for name in names}
    late = Reader(client, request("late"))
    for name, reader in readers.items():
        if name.startswith("poison"):
            failure = await reader.failure()
            assert isinstance(failure, PoisonousRequest)
            assert not failure.retryable
        else:
            assert (await reader.joined())[0][1:] == expected
    assert (await late.joined())[0][1:] == expected
    await client.close()


@pytest.mark.parametrize("follows_a_crash", [False, True])
async def test_a_stage_lost_in_one_place_again_and_again_convicts_only_if_it_crashed(
    client: RecoveringClient, engine: FakeEngineClient, follows_a_crash: bool
) -> None:
    """As where a network lets small messages pass, and no large ones."""
    expected = await Reader(client, request("before")).joined()
    engine._spec = msgspec.structs.replace(engine._spec, follows_a_crash=follows_a_crash)
    engine.step_s = 0.001
    reader = Reader(client, request())
    num_lives = len(engine.submitted)
    for _ in range(6):
        num_lives += 1
        await until(
            lambda n=num_lives: len(engine.submitted) >= n or reader.task.done(),  # type: ignore[misc]
            PATIENCE_S,
        )
        if reader.task.done():
            break
        engine.die(has_lost_a_rank=True)
        await asyncio.sleep(0)
        engine.enter(EngineState.READY)
    if follows_a_crash:
        assert isinstance(await reader.failure(), PoisonousRequest)
    else:
        assert (await reader.joined())[0][1:] == expected[0][1:]
