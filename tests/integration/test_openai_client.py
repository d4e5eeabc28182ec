"""The real openai client against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import openai
import pytest

from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.serving import serving
from novacron.testing.waiting import until

HELLO = [{"role": "user", "content": "What is the capital of France?"}]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}


async def read_to_end(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


@pytest.fixture
async def api(server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0
    ) as client:
        yield client


async def test_chat(api: openai.AsyncOpenAI) -> None:
    answer = await api.chat.completions.create(model="fake", messages=HELLO, logprobs=True)
    [choice] = answer.choices
    assert choice.message.content == "The answer is 42."
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    text = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content[:-1])
    assert text.decode() == "The answer is 42."


async def test_chat_stream(api: openai.AsyncOpenAI) -> None:
    stream = await api.chat.completions.create(
        model="fake", messages=HELLO, stream=True, stream_options={"include_usage": True}, n=2
    )
    texts, reasons, usage = ["", ""], [None, None], None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == ["The answer is 42."] * 2
    assert reasons == ["stop", "stop"]
    assert usage is not None
    assert usage.completion_tokens > 0


async def test_the_stream_helper_assembles_a_completion(api: openai.AsyncOpenAI) -> None:
    async with api.chat.completions.stream(model="fake", messages=HELLO) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "The answer is 42."


async def test_tool_calls(api: openai.AsyncOpenAI, server) -> None:
    server.engine.reply = lambda request: CALL
    answer = await api.chat.completions.create(model="fake", messages=HELLO, tools=[WEATHER])
    [call] = answer.choices[0].message.tool_calls or []
    assert answer.choices[0].finish_reason == "tool_calls"
    assert json.loads(call.function.arguments) == {"city": "Paris"}

    async with api.chat.completions.stream(model="fake", messages=HELLO, tools=[WEATHER]) as stream:
        final = await stream.get_final_completion()
    [streamed] = final.choices[0].message.tool_calls or []
    assert streamed.function.name == "get_weather"
    assert json.loads(streamed.function.arguments) == {"city": "Paris"}

    history = [
        *HELLO,
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    server.engine.reply = lambda request: "It is sunny."
    told = await api.chat.completions.create(model="fake", messages=history, tools=[WEATHER])
    assert told.choices[0].message.content == "It is sunny."


async def test_completions_with_echo_and_logprobs(api: openai.AsyncOpenAI) -> None:
    answer = await api.completions.create(
        model="fake", prompt=["hello", "world"], echo=True, logprobs=2, max_tokens=3
    )
    assert [choice.text[:5] for choice in answer.choices] == ["hello", "world"]
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == answer.choices[0].text
    stream = await api.completions.create(model="fake", prompt="hello", stream=True)
    assert "".join([c.choices[0].text async for c in stream]) == "The answer is 42."


async def test_embeddings_in_the_client_s_default_encoding(api: openai.AsyncOpenAI) -> None:
    packed = await api.embeddings.create(model="fake", input=["hello", "world"])
    plain = await api.embeddings.create(model="fake", input="hello", encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)


async def test_models(api: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in api.models.list()] == ["fake"]
    assert (await api.models.retrieve("fake")).owned_by == "novacron"


async def test_errors_are_the_client_s_own_classes(api: openai.AsyncOpenAI, server) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        await api.chat.completions.create(model="fake", messages=[])
    assert bad.value.param == "messages"
    with pytest.raises(openai.NotFoundError) as missing:
        await api.chat.completions.create(model="other", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        await api.completions.create(model="fake", prompt="hello " * 3000)
    assert long.value.code == "context_length_exceeded"
    server.engine.max_live = 0
    with pytest.raises(openai.InternalServerError) as full:
        await api.chat.completions.create(model="fake", messages=HELLO, stream=True)
    assert full.value.status_code == 503
    assert full.value.response.headers["retry-after"] == "1"


async def test_a_key_is_asked_for_where_one_is_set(tokenizer: Tokenizer) -> None:
    app = build_app(
        FakeEngineClient(tokenizer), ServerConfig(api_key=("secret",)), model_names=("fake",)
    )
    async with serving(app) as url:
        for key, refused in (("secret", False), ("guess", True)):
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key) as api:
                if refused:
                    with pytest.raises(openai.AuthenticationError):
                        await api.models.list()
                else:
                    await api.models.list()


async def test_death_in_mid_stream_is_an_error_event_at_once(
    api: openai.AsyncOpenAI, server
) -> None:
    server.engine.step_s = 0.001
    stream = await api.chat.completions.create(
        model="fake", messages=HELLO, stream=True, extra_body={"ignore_eos": True}
    )
    await anext(stream)
    server.engine.die()
    with pytest.raises(openai.APIError, match="engine process ended"):
        await asyncio.wait_for(read_to_end(stream), 1.0)


async def test_closing_a_stream_aborts_its_request(api: openai.AsyncOpenAI, server) -> None:
    server.engine.step_s = 0.001
    stream = await api.chat.completions.create(
        model="fake", messages=HELLO, stream=True, n=2, extra_body={"ignore_eos": True}
    )
    await anext(stream)
    await stream.close()
    await until(lambda: len(server.engine.aborted) == 2)
    assert server.engine.stats.num_running == 0


async def test_leaving_a_call_that_does_not_stream_aborts_it(
    api: openai.AsyncOpenAI, server
) -> None:
    server.engine.step_s = 0.001
    call = asyncio.create_task(
        api.chat.completions.create(model="fake", messages=HELLO, extra_body={"ignore_eos": True})
    )
    await until(lambda: server.engine.stats.num_running == 1)
    call.cancel()
    await until(lambda: len(server.engine.aborted) == 1)


async def test_a_waiting_stream_lives_on_comments(api: openai.AsyncOpenAI, server) -> None:
    """Longer without a token than the keep-alive interval, which the client must not notice."""
    server.engine.step_s = 0.06
    stream = await api.chat.completions.create(
        model="fake", messages=HELLO, stream=True, max_tokens=3
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text
    assert "The answer is 42.".startswith(text)
