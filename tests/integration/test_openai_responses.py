"""The real openai client's Responses API against a real server on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pydantic
import pytest

from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.serving import serving

HELLO = "What is the capital of France?"
CALL = (
    'Let me see.<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
)
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


@pytest.fixture
async def api(server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0
    ) as client:
        yield client


def prompt_of(server) -> str:
    token_ids = server.engine.submitted[-1].prompt_token_ids
    return server.engine.tokenizer.decode(token_ids, skip_special_tokens=False)


def without_ids(response: openai.types.responses.Response) -> list[dict[str, Any]]:
    items = [item.model_dump(exclude_none=True) for item in response.output]
    return [{k: item[k] for k in item if k not in ("id", "call_id")} for item in items]


async def test_a_response(api: openai.AsyncOpenAI, server) -> None:
    response = await api.responses.create(
        model="fake",
        input=HELLO,
        instructions="Be brief.",
        temperature=0,
        max_output_tokens=50,
        metadata={"a": "b"},
    )
    assert response.output_text == "The answer is 42."
    assert (response.status, response.model, response.metadata) == ("completed", "fake", {"a": "b"})
    assert response.id.startswith("resp_")
    [request] = server.engine.submitted
    assert prompt_of(server).startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert request.sampling.max_tokens == 50
    usage = response.usage
    assert usage is not None
    assert usage.input_tokens == len(request.prompt_token_ids)
    assert usage.input_tokens_details.cached_tokens == 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


@pytest.mark.parametrize("reply", ["The answer is 42.", CALL, CALL + CALL, ""])
async def test_a_stream_is_numbered_and_adds_up_to_the_response(
    api: openai.AsyncOpenAI, server, reply: str
) -> None:
    server.engine.reply = lambda request: reply
    body: Any = {"model": "fake", "input": HELLO, "tools": [WEATHER]}
    whole = await api.responses.create(**body)
    async with api.responses.stream(**body) as stream:
        events = [event async for event in stream]
        streamed = await stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed"
    kinds = [event.type for event in events]
    for what in ("output_item", "content_part"):
        assert kinds.count(f"response.{what}.added") == kinds.count(f"response.{what}.done")
    added = [e.output_index for e in events if e.type == "response.output_item.added"]
    assert added == list(range(len(whole.output)))
    deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert deltas == whole.output_text
    raw = await api.responses.create(**body, stream=True)
    [last] = [event.response async for event in raw if event.type == "response.completed"]
    assert without_ids(last) == without_ids(whole)
    assert streamed.usage == whole.usage


async def test_functions_are_called_and_their_results_told(api: openai.AsyncOpenAI, server) -> None:
    server.engine.reply = lambda request: CALL
    response = await api.responses.create(model="fake", input=HELLO, tools=[WEATHER])
    text, call = response.output
    assert text.type == "message"
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})

    server.engine.reply = lambda request: "It is sunny."
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    items: Any = [{"role": "user", "content": HELLO}, *response.output, result]
    sent = await api.responses.create(model="fake", input=items, tools=[WEATHER])
    prompt = prompt_of(server)
    assert sent.output_text == "It is sunny."
    assert prompt.endswith("tool\nsunny<|im_end|>\n<|im_start|>assistant\n")

    await api.responses.create(
        model="fake", previous_response_id=response.id, input=[result], tools=[WEATHER]
    )
    assert prompt_of(server) == prompt
    forced: Any = {"type": "function", "name": "get_weather"}
    await api.responses.create(model="fake", input="x", tools=[WEATHER], tool_choice=forced)
    assert "get_weather" in server.engine.submitted[-1].sampling.structured_output.spec


async def test_a_format_is_parsed_by_the_client(api: openai.AsyncOpenAI, server) -> None:
    class Capital(pydantic.BaseModel):
        name: str

    server.engine.reply = lambda request: '{"name": "Paris"}'
    response = await api.responses.parse(model="fake", input=HELLO, text_format=Capital)
    assert response.output_parsed == Capital(name="Paris")
    assert server.engine.submitted[-1].sampling.structured_output.kind == "json_schema"


async def test_what_was_cut_is_incomplete(api: openai.AsyncOpenAI) -> None:
    response = await api.responses.create(model="fake", input=HELLO, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    stream = await api.responses.create(model="fake", input=HELLO, max_output_tokens=3, stream=True)
    assert [event.type async for event in stream][-1] == "response.incomplete"


async def test_logprobs_come_if_included(api: openai.AsyncOpenAI, server) -> None:
    body: Any = {"model": "fake", "input": HELLO, "top_logprobs": 2, "tools": [WEATHER]}
    included: Any = ["message.output_text.logprobs"]
    response = await api.responses.create(**body, include=included)
    [part] = response.output[0].content
    text = b"".join(bytes(token.bytes) for token in part.logprobs[:-1]).decode()
    assert text == "The answer is 42."
    assert len(part.logprobs[0].top_logprobs) == 2
    server.engine.reply = lambda request: CALL
    stream = await api.responses.create(**body, include=included, stream=True)
    [called] = [e.response async for e in stream if e.type == "response.completed"]
    assert [item.type for item in called.output] == ["message", "function_call"]
    server.engine.reply = lambda request: "The answer is 42."
    without = await api.responses.create(**body)
    assert without.output[0].content[0].logprobs == []


async def test_tokens_are_counted_without_computing(api: openai.AsyncOpenAI, server) -> None:
    body: Any = {"model": "fake", "input": HELLO, "instructions": "x", "tools": [WEATHER]}
    count = await api.responses.input_tokens.count(**body)
    assert not server.engine.submitted
    response = await api.responses.create(**body)
    assert response.usage is not None
    assert count.input_tokens == response.usage.input_tokens


async def test_a_response_can_be_had_again_until_it_is_deleted(api: openai.AsyncOpenAI) -> None:
    response = await api.responses.create(model="fake", input=HELLO)
    assert await api.responses.retrieve(response.id) == response
    await api.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        await api.responses.retrieve(response.id)
    unkept = await api.responses.create(model="fake", input=HELLO, store=False)
    with pytest.raises(openai.NotFoundError, match="store false"):
        await api.responses.create(model="fake", input="And?", previous_response_id=unkept.id)


async def test_a_running_response_is_cancelled_and_one_that_has_ended_is_not(
    api: openai.AsyncOpenAI, server
) -> None:
    server.engine.step_s = 0.001
    server.engine.reply = lambda request: "word " * 10_000
    stream = await api.responses.create(model="fake", input=HELLO, stream=True)
    begun = (await anext(stream)).response
    cancelled = await api.responses.cancel(begun.id)
    assert (cancelled.id, cancelled.status) == (begun.id, "cancelled")
    last = [event async for event in stream][-1]
    assert last.response == cancelled
    assert await api.responses.retrieve(begun.id) == cancelled
    assert await api.responses.cancel(begun.id) == cancelled
    with pytest.raises(openai.NotFoundError):
        await api.responses.cancel("resp_never")


async def test_what_a_response_was_made_of_is_listed(api: openai.AsyncOpenAI, server) -> None:
    server.engine.reply = lambda request: CALL
    first = await api.responses.create(
        model="fake", input=HELLO, tools=[WEATHER], instructions="Be brief."
    )
    call = first.output[1]
    assert call.type == "function_call"
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    server.engine.reply = lambda request: "It is sunny."
    second = await api.responses.create(
        model="fake", previous_response_id=first.id, input=[result], tools=[WEATHER]
    )
    listed = [one async for one in api.responses.input_items.list(second.id, order="asc")]
    told: Any = [one.model_dump(exclude={"id", "status"}, exclude_none=True) for one in listed]
    assert told == [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": HELLO}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me see."}],
        },
        {
            "type": "function_call",
            "call_id": call.call_id,
            "name": "get_weather",
            "arguments": call.arguments,
        },
        result,
    ]
    newest_first = [one async for one in api.responses.input_items.list(second.id, limit=1)]
    assert [one.id for one in newest_first] == [one.id for one in reversed(listed)]
    with pytest.raises(openai.BadRequestError) as refused:
        await api.responses.input_items.list(second.id, after="msg_never")
    assert refused.value.param == "after"
    with pytest.raises(openai.NotFoundError):
        await api.responses.input_items.list("resp_never")


async def test_nobody_goes_on_with_another_tenant_s_response(tokenizer: Tokenizer) -> None:
    config = ServerConfig(api_key=("one", "two"))
    app = build_app(FakeEngineClient(tokenizer), config, model_names=("fake",))
    async with serving(app) as url:
        one, two = (
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
            for key in ("one", "two")
        )
        async with one, two:
            response = await one.responses.create(model="fake", input=HELLO)
            for call in (
                two.responses.retrieve(response.id),
                two.responses.delete(response.id),
                two.responses.cancel(response.id),
                two.responses.input_items.list(response.id),
                two.responses.create(model="fake", input="And?", previous_response_id=response.id),
            ):
                with pytest.raises(openai.NotFoundError):
                    await call
            assert (await one.responses.retrieve(response.id)).id == response.id


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"input": ""}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input.0.content.0",
        ),
    ],
)
async def test_what_is_not_here_is_refused(
    api: openai.AsyncOpenAI, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await api.responses.create(**{"model": "fake", "input": HELLO, **body})
    assert refused.value.param == param


async def test_death_in_mid_stream_is_a_failed_response(api: openai.AsyncOpenAI, server) -> None:
    server.engine.step_s = 0.001
    server.engine.reply = lambda request: "word " * 1000
    stream = await api.responses.create(model="fake", input=HELLO, stream=True)
    await anext(stream)
    server.engine.die()
    events = [event async for event in stream]
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(1, len(events) + 1))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert "engine process ended" in events[-1].response.error.message
