"""The real anthropic client against a real server on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.records.request import Request
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.serving import serving

HELLO: Any = [{"role": "user", "content": "What is the capital of France?"}]
CALL = (
    'Let me see.<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
)
WEATHER: Any = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALLED = [
    {"type": "text", "text": "Let me see."},
    {"type": "tool_use", "name": "get_weather", "input": {"city": "Paris"}},
]


@pytest.fixture
async def api(server) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=server.url, api_key="none", max_retries=0
    ) as client:
        yield client


def prompt_of(request: Request, server) -> str:
    return server.engine.tokenizer.decode(request.prompt_token_ids, skip_special_tokens=False)


def without_ids(message: anthropic.types.Message) -> list[dict[str, Any]]:
    blocks = [block.model_dump(exclude_none=True) for block in message.content]
    return [{key: block[key] for key in block if key != "id"} for block in blocks]


async def test_a_message(api: anthropic.AsyncAnthropic, server) -> None:
    message = await api.messages.create(
        model="fake",
        max_tokens=100,
        messages=HELLO,
        system="Be brief.",
        extra_body={"temperature": 0},  # this client has no argument for it any more
    )
    assert without_ids(message) == [{"type": "text", "text": "The answer is 42."}]
    assert (message.role, message.type, message.model) == ("assistant", "message", "fake")
    assert message.stop_reason == "end_turn"
    assert message.id.startswith("msg_")
    assert message._request_id is not None
    assert message.id.endswith(message._request_id)
    [request] = server.engine.submitted
    assert prompt_of(request, server).startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert request.sampling.temperature == 0
    assert message.usage.input_tokens == len(request.prompt_token_ids)
    assert message.usage.cache_read_input_tokens == 0
    assert message.usage.output_tokens > 0


@pytest.mark.parametrize("reply", ["The answer is 42.", CALL, "", CALL + CALL])
async def test_a_stream_adds_up_to_the_message(
    api: anthropic.AsyncAnthropic, server, reply: str
) -> None:
    server.engine.reply = lambda request: reply
    body: Any = {"model": "fake", "max_tokens": 100, "messages": HELLO, "tools": [WEATHER]}
    whole = await api.messages.create(**body)
    async with api.messages.stream(**body) as stream:
        kinds = [event.type async for event in stream]
        streamed = await stream.get_final_message()
    assert without_ids(streamed) == without_ids(whole)
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.usage.input_tokens == whole.usage.input_tokens
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop")
    assert kinds.count("content_block_start") == len(whole.content)


async def test_a_tool_is_called_and_its_result_told(api: anthropic.AsyncAnthropic, server) -> None:
    server.engine.reply = lambda request: CALL
    body: Any = {"model": "fake", "max_tokens": 100, "tools": [WEATHER]}
    message = await api.messages.create(messages=HELLO, **body)
    assert without_ids(message) == CALLED
    assert message.stop_reason == "tool_use"

    server.engine.reply = lambda request: "It is sunny."
    result = {
        "type": "tool_result",
        "tool_use_id": message.content[1].id,
        "content": [{"type": "text", "text": "sunny"}],
    }
    history = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
    ]
    told = await api.messages.create(messages=history, **body)
    assert without_ids(told) == [{"type": "text", "text": "It is sunny."}]
    prompt = prompt_of(server.engine.submitted[-1], server)
    assert "tool\nsunny<|im_end|>\n<|im_start|>user\nAnd?" in prompt


async def test_a_tool_can_be_demanded(api: anthropic.AsyncAnthropic, server) -> None:
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        await api.messages.create(
            model="fake", max_tokens=9, messages=HELLO, tools=[WEATHER], tool_choice=choice
        )
        constraint = server.engine.submitted[-1].sampling.structured_output
        assert constraint is not None
        assert "get_weather" in constraint.spec
    with pytest.raises(anthropic.BadRequestError, match="other"):
        await api.messages.create(
            model="fake",
            max_tokens=9,
            messages=HELLO,
            tools=[WEATHER],
            tool_choice={"type": "tool", "name": "other"},
        )


async def test_a_format_constrains_the_text(api: anthropic.AsyncAnthropic, server) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    await api.messages.create(
        model="fake",
        max_tokens=9,
        messages=HELLO,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    constraint = server.engine.submitted[-1].sampling.structured_output
    assert constraint.kind == "json_schema"
    assert json.loads(constraint.spec) == schema


async def test_why_a_message_ended(api: anthropic.AsyncAnthropic) -> None:
    body: Any = {"model": "fake", "messages": HELLO}
    cut = await api.messages.create(max_tokens=3, **body)
    assert cut.stop_reason == "max_tokens"
    assert cut.usage.output_tokens == 3
    stopped = await api.messages.create(max_tokens=99, stop_sequences=["is"], **body)
    assert without_ids(stopped) == [{"type": "text", "text": "The answer "}]
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "is")
    async with api.messages.stream(max_tokens=99, stop_sequences=["is"], **body) as stream:
        streamed = await stream.get_final_message()
    assert (streamed.stop_reason, streamed.stop_sequence) == ("stop_sequence", "is")


async def test_more_tokens_than_the_context_holds_are_only_a_ceiling(
    api: anthropic.AsyncAnthropic, server
) -> None:
    body: Any = {"model": "fake", "max_tokens": 100_000, "messages": HELLO}
    whole = api.with_options(timeout=60).messages
    assert (await whole.create(**body)).stop_reason == "end_turn"
    server.engine.reply = lambda request: "word " * 5000
    message = await whole.create(**body)
    assert message.stop_reason == "model_context_window_exceeded"
    used = message.usage.input_tokens + message.usage.output_tokens
    assert used == server.engine.spec.max_model_len


async def test_an_answer_that_the_client_has_begun_goes_on(
    api: anthropic.AsyncAnthropic, server
) -> None:
    begun = [*HELLO, {"role": "assistant", "content": "It is"}]
    await api.messages.create(model="fake", max_tokens=9, messages=begun)
    assert prompt_of(server.engine.submitted[-1], server).endswith("assistant\nIt is")


async def test_tokens_are_counted_without_computing(api: anthropic.AsyncAnthropic, server) -> None:
    body: Any = {"model": "fake", "messages": HELLO, "tools": [WEATHER], "system": "Be brief."}
    count = await api.messages.count_tokens(**body)
    assert not server.engine.submitted
    message = await api.messages.create(max_tokens=9, **body)
    assert count.input_tokens == message.usage.input_tokens


async def test_errors_are_the_client_s_own_classes(api: anthropic.AsyncAnthropic, server) -> None:
    body: Any = {"model": "fake", "max_tokens": 9}
    with pytest.raises(anthropic.BadRequestError) as bad:
        await api.messages.create(messages=[], **body)
    assert bad.value.body["type"] == "error"
    assert bad.value.body["error"]["type"] == "invalid_request_error"
    assert "messages" in bad.value.body["error"]["message"]
    with pytest.raises(anthropic.NotFoundError) as missing:
        await api.messages.create(messages=HELLO, model="other", max_tokens=9)
    assert missing.value.body["error"]["type"] == "not_found_error"
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    with pytest.raises(anthropic.BadRequestError, match=r"messages\.0\.content\.0.*'image'"):
        await api.messages.create(messages=[{"role": "user", "content": [image]}], **body)
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match=r"tools\.0.*web_search_20250305"):
        await api.messages.create(messages=HELLO, tools=[search], **body)
    server.engine.max_live = 0
    with pytest.raises(anthropic.APIStatusError) as full:
        await api.messages.create(messages=HELLO, stream=True, **body)
    assert full.value.status_code == 503
    assert full.value.body["error"]["type"] == "overloaded_error"


async def test_death_in_mid_stream_is_an_error_event(api: anthropic.AsyncAnthropic, server) -> None:
    server.engine.step_s = 0.001
    server.engine.reply = lambda request: "word " * 1000
    stream = await api.messages.create(model="fake", max_tokens=900, messages=HELLO, stream=True)
    await anext(stream)
    server.engine.die()
    with pytest.raises(anthropic.APIStatusError, match="engine process ended"):
        async for _ in stream:
            pass


async def test_a_waiting_stream_lives_on_pings(api: anthropic.AsyncAnthropic, server) -> None:
    """Longer without a token than the keep-alive interval, which the client must not notice."""
    server.engine.step_s = 0.06
    async with api.messages.stream(model="fake", max_tokens=3, messages=HELLO) as stream:
        message = await stream.get_final_message()
    assert message.usage.output_tokens == 3


async def test_the_key_is_the_client_s_header(tokenizer: Tokenizer) -> None:
    app = build_app(
        FakeEngineClient(tokenizer), ServerConfig(api_key=("secret",)), model_names=("fake",)
    )
    async with serving(app) as url:
        for sent, refused in (
            ({"api_key": "secret"}, False),
            ({"auth_token": "secret"}, False),
            ({"api_key": "guess"}, True),
        ):
            async with anthropic.AsyncAnthropic(base_url=url, **sent) as api:
                call = api.messages.create(model="fake", max_tokens=9, messages=HELLO)
                if refused:
                    with pytest.raises(anthropic.AuthenticationError) as wrong:
                        await call
                    assert wrong.value.body["error"]["type"] == "authentication_error"
                else:
                    await call
