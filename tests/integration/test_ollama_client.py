"""The real ollama client against a real server on loopback."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import ollama
import pytest

from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.serving import serving

HELLO: Any = [{"role": "user", "content": "What is the capital of France?"}]
CALLS = (
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture
async def api(server) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=server.url)
    yield client
    await client.close()


def prompt_of(server) -> str:
    token_ids = server.engine.submitted[-1].prompt_token_ids
    return server.engine.tokenizer.decode(token_ids, skip_special_tokens=False)


async def test_a_chat(api: ollama.AsyncClient, server) -> None:
    answer = await api.chat("fake", HELLO, options={"temperature": 0, "num_predict": 50, "seed": 3})
    assert answer.message.content == "The answer is 42."
    assert answer.message.role == "assistant"
    assert (answer.done, answer.done_reason, answer.model) == (True, "stop", "fake")
    [request] = server.engine.submitted
    sampling = request.sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.seed) == (0, 50, 3)
    assert (sampling.top_k, sampling.top_p) == (40, 0.9)
    assert answer.prompt_eval_count == len(request.prompt_token_ids)
    assert answer.eval_count is not None
    assert answer.eval_count > 0
    assert answer.total_duration is not None
    assert answer.total_duration >= (answer.eval_duration or 0) > 0


async def test_a_stream_adds_up_to_the_whole(api: ollama.AsyncClient) -> None:
    whole = await api.chat("fake", HELLO, logprobs=True, top_logprobs=2)
    parts = [
        part
        async for part in await api.chat("fake", HELLO, stream=True, logprobs=True, top_logprobs=2)
    ]
    assert len(parts) > 2
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    last = parts[-1]
    assert (last.eval_count, last.done_reason) == (whole.eval_count, whole.done_reason)
    assert last.prompt_eval_count == whole.prompt_eval_count
    told = [position for part in parts for position in part.logprobs or ()]
    assert told == list(whole.logprobs or ())
    assert len(told[0].top_logprobs or ()) == 2


async def test_tools_are_called_and_their_results_told(api: ollama.AsyncClient, server) -> None:
    server.engine.reply = lambda request: CALLS
    answer = await api.chat("fake", HELLO, tools=[WEATHER])
    arguments = [call.function.arguments for call in answer.message.tool_calls or ()]
    assert arguments == [{"city": "Paris"}, {"city": "Rome"}]
    parts = [part async for part in await api.chat("fake", HELLO, tools=[WEATHER], stream=True)]
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert calls == list(answer.message.tool_calls or ())

    server.engine.reply = lambda request: "It is sunny."
    history = [
        *HELLO,
        answer.message,
        {"role": "tool", "tool_name": "get_weather", "content": "sunny"},
    ]
    told = await api.chat("fake", history, tools=[WEATHER])
    assert told.message.content == "It is sunny."
    assert "<|im_start|>tool\nsunny<|im_end|>" in prompt_of(server)


async def test_a_format_constrains_the_text(api: ollama.AsyncClient, server) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    await api.chat("fake", HELLO, format=schema)
    constraint = server.engine.submitted[-1].sampling.structured_output
    assert json.loads(constraint.spec) == schema
    await api.generate("fake", "hi", format="json")
    assert server.engine.submitted[-1].sampling.structured_output.kind == "json_object"


async def test_stops_and_limits(api: ollama.AsyncClient) -> None:
    stopped = await api.chat("fake", HELLO, options={"stop": ["is"]})
    assert stopped.message.content == "The answer "
    cut = await api.chat("fake", HELLO, options={"num_predict": 3})
    assert (cut.done_reason, cut.eval_count) == ("length", 3)


async def test_a_text(api: ollama.AsyncClient, server) -> None:
    answer = await api.generate("fake", "hello", system="Be brief.")
    assert answer.response == "The answer is 42."
    assert prompt_of(server).startswith("<|im_start|>system\nBe brief.<|im_end|>")
    parts = [part async for part in await api.generate("fake", "hello", raw=True, stream=True)]
    assert "".join(part.response or "" for part in parts) == "The answer is 42."
    assert prompt_of(server) == "hello"


async def test_embeddings(api: ollama.AsyncClient) -> None:
    several = await api.embed("fake", ["hello", "world"])
    one = await api.embed("fake", "hello", dimensions=4)
    assert len(several.embeddings) == 2
    assert math.fsum(x * x for x in several.embeddings[1]) == pytest.approx(1)
    assert len(one.embeddings[0]) == 4
    other = await api.embed("fake", "world")
    assert several.prompt_eval_count == one["prompt_eval_count"] + other["prompt_eval_count"]
    old = await api.embeddings("fake", "hello")
    assert old.embedding == several.embeddings[0]
    long = "hello " * 3000
    with pytest.raises(ollama.ResponseError, match="context holds"):
        await api.embed("fake", long)
    assert len((await api.embed("fake", long, truncate=True)).embeddings) == 1
    assert (await api.embed("fake", [])).embeddings == []


async def test_what_is_said_of_the_model(api: ollama.AsyncClient, server) -> None:
    [listed] = (await api.list()).models
    assert (listed.model, listed.digest) == ("fake", server.engine.spec.model_version)
    [running] = (await api.ps()).models
    assert running.context_length == server.engine.spec.max_model_len
    shown = await api.show("fake:latest")
    assert shown.capabilities == ["completion", "tools"]
    assert "<|im_start|>" in (shown.template or "")
    assert shown.modelinfo is not None
    assert shown.modelinfo["fake.context_length"] == server.engine.spec.max_model_len
    loaded = await api.generate("fake", keep_alive=-1)
    assert (loaded.done, loaded.done_reason) == (True, "load")


async def test_errors_are_the_client_s_own_class(api: ollama.AsyncClient, server) -> None:
    with pytest.raises(ollama.ResponseError, match="not served here") as missing:
        await api.chat("other", HELLO)
    assert missing.value.status_code == 404
    for body in (
        {"messages": [{**HELLO[0], "images": [b"png"]}]},
        {"messages": HELLO, "options": {"mirostat": 2}},
        {"messages": HELLO, "options": {"num_predict": 0}},
    ):
        with pytest.raises(ollama.ResponseError) as refused:
            await api.chat("fake", **body)
        assert refused.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="There is no POST /api/pull here"):
        await api.pull("fake")
    server.engine.max_live = 0
    with pytest.raises(ollama.ResponseError) as full:
        await api.chat("fake", HELLO)
    assert full.value.status_code == 503


async def test_death_in_mid_stream_is_an_error_line(api: ollama.AsyncClient, server) -> None:
    server.engine.step_s = 0.001
    server.engine.reply = lambda request: "word " * 1000
    stream = await api.chat("fake", HELLO, stream=True)
    await anext(stream)
    server.engine.die()
    with pytest.raises(ollama.ResponseError, match="engine process ended"):
        async for _ in stream:
            pass


async def test_a_waiting_stream_lives_on_lines_without_text(
    api: ollama.AsyncClient, server
) -> None:
    """Longer without a token than the keep-alive interval, which the client must not notice."""
    server.engine.step_s = 0.06
    stream = await api.chat("fake", HELLO, stream=True, options={"num_predict": 3})
    parts = [part async for part in stream]
    assert parts[-1].eval_count == 3


async def test_ollama_s_command_finds_the_server(server) -> None:
    """It asks so before whatever it is told to do."""
    async with httpx2.AsyncClient(base_url=server.url) as http:
        found = await http.head("/")
    assert (found.status_code, found.content) == (200, b"")


async def test_a_key_is_asked_for_where_one_is_set(tokenizer: Tokenizer) -> None:
    app = build_app(
        FakeEngineClient(tokenizer), ServerConfig(api_key=("secret",)), model_names=("fake",)
    )
    async with serving(app) as url:
        allowed = ollama.AsyncClient(host=url, headers={"authorization": "Bearer secret"})
        assert (await allowed.list()).models
        await allowed.close()
        refused = ollama.AsyncClient(host=url)
        with pytest.raises(ollama.ResponseError, match="API key is required") as error:
            await refused.list()
        assert error.value.status_code == 401
        await refused.close()
