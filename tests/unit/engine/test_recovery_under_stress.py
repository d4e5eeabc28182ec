"""RecoveringClient when all happens at once: deaths, aborts, readers that leave or dawdle."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest

from novacron.engine.client import EngineState
from novacron.engine.recovering_client import RecoveringClient
from novacron.engine.tokenization import Tokenizer
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.testing.fake_engine_client import FakeEngineClient, fake_tokenizer
from novacron.testing.waiting import until

NUM_CALLS = 24
STEPS_A_LIFE = 40  # at least: what kills faster would look like a request that kills
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return fake_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def text_of(request: Request) -> str:
    return f"The answer to {request.prompt_token_ids[0]} is what it always was. " * 3


def make_call(draw: random.Random, name: str) -> tuple[Request, ...]:
    return tuple(
        Request(
            request_id=f"{name}-{copy}",
            prompt_token_ids=(draw.randrange(1, 90), 2, 3),
            sampling=SamplingParams(max_tokens=draw.randrange(1, 150), ignore_eos=True),
            arrival_time_s=0.0,
        )
        for copy in range(draw.choice((1, 1, 2, 3)))
    )


class Caller:
    """Reads one call at its own pace, perhaps only the beginning."""

    def __init__(self, draw: random.Random, name: str) -> None:
        self.requests = make_call(draw, name)
        self.pause = draw.choice((0, 0, 0, 3, 20))  # turns of the loop between two outputs
        self.most_outputs = draw.choice((10**6, 10**6, 10**6, draw.randrange(30)))
        self.outputs: list[RequestOutput] = []
        self.left = False

    async def call(self, client: RecoveringClient) -> None:
        async with aclosing(client.generate(self.requests)) as outputs:
            async for output in outputs:
                self.outputs.append(output)
                for _ in range(self.pause):
                    await asyncio.sleep(0)
                if len(self.outputs) >= self.most_outputs:
                    self.left = True
                    return

    def check(self, tokenizer: Tokenizer, aborted: set[str]) -> None:
        for index, request in enumerate(self.requests):
            own = [output for output in self.outputs if output.index == index]
            text = tokenizer.encode(text_of(request), add_special_tokens=False)
            assert request.sampling.max_tokens is not None
            repeated = text * (request.sampling.max_tokens // len(text) + 1)
            expected = tuple(repeated[: request.sampling.max_tokens])
            tokens = sum((output.token_ids for output in own), ())
            assert tokens == expected[: len(tokens)]
            if self.left:
                continue
            assert [output.finished for output in own] == [False] * (len(own) - 1) + [True]
            if own[-1].finish_reason is FinishReason.ABORT:
                assert request.request_id in aborted
            else:
                assert (own[-1].finish_reason, tokens) == (FinishReason.LENGTH, expected)
            assert own[-1].num_output_tokens == len(tokens)


@pytest.mark.parametrize("seed", range(6))
async def test_every_call_ends_once_with_what_it_would_have_got(
    tokenizer: Tokenizer, seed: int
) -> None:
    draw = random.Random(seed)
    engine = FakeEngineClient(tokenizer, reply=text_of)
    client = RecoveringClient(engine, timeout_s=PATIENCE_S, most_waiting=200)
    callers = [Caller(draw, str(place)) for place in range(NUM_CALLS)]
    ids = [request.request_id for caller in callers for request in caller.requests]
    aborted: set[str] = set()

    async def live(num_steps: int) -> None:
        end = engine.stats.num_steps + num_steps
        await until(lambda: engine.stats.num_steps >= end, PATIENCE_S)

    async def strike() -> None:
        while True:
            await live(STEPS_A_LIFE + draw.randrange(60))
            engine.die()
            for _ in range(draw.randrange(40)):
                await asyncio.sleep(0)
            engine.enter(EngineState.READY)

    async def abort_some() -> None:
        for request_id in draw.sample(ids, 5):
            for _ in range(draw.randrange(400)):
                await asyncio.sleep(0)
            aborted.add(request_id)
            await client.abort(request_id)

    async def come(caller: Caller) -> None:
        for _ in range(draw.randrange(200)):
            await asyncio.sleep(0)
        await caller.call(client)

    striking = asyncio.create_task(strike())
    aborting = asyncio.create_task(abort_some())
    await asyncio.wait_for(asyncio.gather(*map(come, callers)), PATIENCE_S)
    await aborting
    striking.cancel()
    await asyncio.gather(striking, return_exceptions=True)
    for caller in callers:
        caller.check(tokenizer, aborted)
    assert engine.num_restarts > 1
    if engine.state is not EngineState.READY:
        engine.enter(EngineState.READY)
    assert client.stats.num_waiting == 0
    assert await client.drain(PATIENCE_S)
    assert client.stats.num_running == 0
    await client.close()
