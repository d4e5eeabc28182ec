from __future__ import annotations

import asyncio

import msgspec
import pytest

from novacron.errors import EngineDead, RequestFailed
from novacron.gateway.calls import Call, CallOrigin, Calls, Choice, collect
from novacron.observability.metrics import Metrics
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.waiting import until


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def calls(client: FakeEngineClient, metrics: Metrics) -> Calls:
    return Calls(client, metrics)


def call_of(origin: CallOrigin, *, n: int = 1, max_tokens: int = 5) -> Call:
    sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    return Call(
        origin=origin,
        n=n,
        requests=tuple(
            Request(
                request_id=f"r{i}",
                prompt_token_ids=(5, 6, 7),
                sampling=sampling,
                arrival_time_s=0.0,
            )
            for i in range(2 * n)
        ),
    )


async def test_collect_keeps_requests_apart(calls: Calls, origin: CallOrigin) -> None:
    call = call_of(origin, n=2)
    choices = await collect(call, calls.run(call))
    assert [choice.num_output_tokens for choice in choices] == [5] * 4
    assert {choice.finish_reason for choice in choices} == {FinishReason.LENGTH}
    assert call.num_prompt_tokens == 6
    assert len(calls) == 0


async def test_closing_aborts_what_still_runs(
    calls: Calls, client: FakeEngineClient, origin: CallOrigin
) -> None:
    outputs = calls.run(call_of(origin, max_tokens=1000))
    await anext(outputs)
    assert len(calls) == 1
    await outputs.aclose()
    assert sorted(client.aborted) == ["r0", "r1"]
    assert len(calls) == 0


@pytest.mark.parametrize("some_id", ["call-9", "request-9"])
async def test_cancel_finds_a_call_by_either_id(
    calls: Calls, client: FakeEngineClient, origin: CallOrigin, some_id: str
) -> None:
    mine = CallOrigin(
        call_id="call-9", request_id="request-9", model="m", created=0, arrival_time_s=0.0
    )
    other = asyncio.create_task(_collect(calls, call_of(origin)))
    call = Call(origin=mine, requests=_renamed(call_of(mine, max_tokens=1000)))
    running = asyncio.create_task(_collect(calls, call))
    await until(lambda: len(client.submitted) >= 4)
    assert await calls.cancel(some_id) == 1
    assert {choice.finish_reason for choice in await running} == {FinishReason.ABORT}
    assert {choice.finish_reason for choice in await other} == {FinishReason.LENGTH}
    assert await calls.cancel(some_id) == 0


async def test_a_failed_request_raises_and_is_counted(
    calls: Calls, client: FakeEngineClient, metrics: Metrics, origin: CallOrigin
) -> None:
    client.fail_with = "not finite"
    call = call_of(origin)
    with pytest.raises(RequestFailed, match="not finite"):
        await collect(call, calls.run(call))
    assert metrics.errors == {"RequestFailed": 1}


async def test_death_reaches_every_reader(
    calls: Calls, client: FakeEngineClient, metrics: Metrics, origin: CallOrigin
) -> None:
    call = call_of(origin, max_tokens=1000)
    running = asyncio.create_task(_collect(calls, call))
    await until(lambda: client.submitted)
    client.die()
    with pytest.raises(EngineDead):
        await running
    assert metrics.errors == {"EngineDead": 1}


async def _collect(calls: Calls, call: Call) -> tuple[Choice, ...]:
    return await collect(call, calls.run(call))


def _renamed(call: Call) -> tuple[Request, ...]:
    return tuple(
        msgspec.structs.replace(request, request_id=f"mine-{request.request_id}")
        for request in call.requests
    )
