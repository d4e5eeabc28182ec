"""The real server through OpenAI's own client, sync and async."""

from __future__ import annotations

import asyncio
import math
from typing import Literal

import httpx2
import openai
import pytest
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)
from pydantic import BaseModel, ConfigDict, Field

from novacron.testing.server_process import PATIENCE_S, ServerProcess

MODEL = "novacron-demo"
LONG_PREFIX = "The key of the red house is 4711. " * 30


class City(BaseModel):
    """What the model is made to write."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Literal["Paris", "Rome", "Oslo"]
    population: int = Field(ge=0, le=99_999_999)
    capital: bool


def ask(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def test_the_bundled_model_answers(server: ServerProcess) -> None:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S
    ) as client:
        assert MODEL in [model.id for model in client.models.list()]
        question = ask("What is the capital of France?")
        answer = client.chat.completions.create(model=MODEL, messages=question, temperature=0)
        choice = answer.choices[0]
        assert "Paris" in (choice.message.content or "")
        assert choice.finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens == (
            answer.usage.prompt_tokens + answer.usage.completion_tokens
        )
        stream = client.chat.completions.create(
            model=MODEL, messages=question, temperature=0, stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == choice.message.content


async def test_a_stream_says_what_the_whole_says(api: openai.AsyncOpenAI) -> None:
    whole = await api.chat.completions.create(
        model=MODEL, messages=ask("Tell me about NovaCron."), temperature=0, max_tokens=40
    )
    stream = await api.chat.completions.create(
        model=MODEL,
        messages=ask("Tell me about NovaCron."),
        temperature=0,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert [reason for reason in reasons if reason] == [whole.choices[0].finish_reason]
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_the_second_call_finds_the_prefix_in_the_cache(api: openai.AsyncOpenAI) -> None:
    answers = [
        await api.chat.completions.create(
            model=MODEL,
            messages=ask(LONG_PREFIX + question),
            temperature=0,
            max_tokens=16,
            extra_body={"cache_salt": "test_the_second_call"},
        )
        for question in ("What is the key?", "What is the key?", "Which house is it?")
    ]
    cold, warm, other = map(cached_share, answers)
    assert cold == 0
    assert 0.8 < warm < 1
    assert 0.8 < other < 1
    assert answers[0].choices[0].message == answers[1].choices[0].message


def cached_share(answer: ChatCompletion) -> float:
    """Of the prompt's tokens."""
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    return (answer.usage.prompt_tokens_details.cached_tokens or 0) / answer.usage.prompt_tokens


async def test_three_choices_are_reproducible_by_their_seed(api: openai.AsyncOpenAI) -> None:
    async def draw(seed: int) -> list[str | None]:
        answer = await api.chat.completions.create(
            model=MODEL,
            messages=ask("Say something."),
            n=3,
            seed=seed,
            temperature=1.5,
            max_tokens=24,
            extra_body={"ignore_eos": True},
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        return [choice.message.content for choice in answer.choices]

    first, again, other = await draw(7), await draw(7), await draw(100)
    assert first == again
    assert len({*first, *other}) == 6


async def test_logprobs_are_those_of_the_text(api: openai.AsyncOpenAI) -> None:
    answer = await api.chat.completions.create(
        model=MODEL,
        messages=ask("What is the capital of Italy?"),
        temperature=0,
        max_tokens=12,
        logprobs=True,
        top_logprobs=3,
    )
    choice = answer.choices[0]
    assert choice.logprobs is not None
    positions = choice.logprobs.content
    assert positions
    for position in positions:
        assert len(position.top_logprobs) == 3
        assert position.top_logprobs[0].token == position.token  # greedy takes the likeliest
        assert position.logprob == position.top_logprobs[0].logprob <= 0
        assert sum(math.exp(top.logprob) for top in position.top_logprobs) <= 1.0001
    data = b"".join(bytes(position.bytes or []) for position in positions)
    assert data.decode().startswith(choice.message.content or "")


async def test_a_stop_string_ends_the_text_before_it(api: openai.AsyncOpenAI) -> None:
    question = ask("What is the capital of France?")
    free = await api.chat.completions.create(model=MODEL, messages=question, temperature=0)
    text = free.choices[0].message.content or ""
    stopped = await api.chat.completions.create(
        model=MODEL, messages=question, temperature=0, stop=[" Paris", "never"]
    )
    assert stopped.choices[0].message.content == text.partition(" Paris")[0]
    assert stopped.choices[0].finish_reason == "stop"


def city_tool() -> ChatCompletionToolParam:
    return {
        "type": "function",
        "function": {
            "name": "find_city",
            "description": "Looks up a city.",
            "parameters": City.model_json_schema(),
        },
    }


@pytest.mark.parametrize("temperature", [0, 1.5])
async def test_a_forced_call_has_arguments_of_the_schema(
    api: openai.AsyncOpenAI, temperature: float
) -> None:
    answer = await api.chat.completions.create(
        model=MODEL,
        messages=ask("Find Paris."),
        tools=[city_tool()],
        tool_choice={"type": "function", "function": {"name": "find_city"}},
        temperature=temperature,
        seed=1,
        max_tokens=400,
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "find_city"
    City.model_validate_json(call.function.arguments)


async def test_a_forced_call_streams(api: openai.AsyncOpenAI) -> None:
    async with api.chat.completions.stream(
        model=MODEL,
        messages=ask("Find Rome."),
        tools=[city_tool()],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
        max_tokens=400,
    ) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    City.model_validate_json(call.function.arguments)


@pytest.mark.parametrize("temperature", [0, 1.5])
async def test_json_of_the_schema(api: openai.AsyncOpenAI, temperature: float) -> None:
    answer = await api.chat.completions.create(
        model=MODEL,
        messages=ask("Describe a city as JSON."),
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": City.model_json_schema(), "strict": True},
        },
        temperature=temperature,
        seed=2,
        max_tokens=400,
    )
    assert answer.choices[0].finish_reason == "stop"
    City.model_validate_json(answer.choices[0].message.content or "")


async def test_embeddings_are_unit_vectors_that_do_not_depend_on_their_neighbours(
    api: openai.AsyncOpenAI,
) -> None:
    texts = ["The capital of France is Paris.", "2 + 2 = 4", "Paris is the capital of France."]
    together = await api.embeddings.create(model=MODEL, input=texts)
    alone = [await api.embeddings.create(model=MODEL, input=text) for text in texts]
    for place, one in enumerate(together.data):
        assert one.index == place
        assert math.hypot(*one.embedding) == pytest.approx(1.0, abs=1e-5)
        assert one.embedding == pytest.approx(alone[place].data[0].embedding, abs=1e-4)
    france, sums, paris = (one.embedding for one in together.data)
    assert _product(france, paris) > _product(france, sums)


def _product(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


async def test_a_completion_with_echo(api: openai.AsyncOpenAI) -> None:
    prompt = "The capital of France is"
    answer = await api.completions.create(
        model=MODEL, prompt=prompt, echo=True, logprobs=1, max_tokens=4, temperature=0
    )
    choice = answer.choices[0]
    assert choice.text.startswith(prompt)
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None  # nothing comes before the first token
    assert answer.usage is not None
    assert len(choice.logprobs.token_logprobs) == answer.usage.total_tokens
    without = await api.completions.create(model=MODEL, prompt=prompt, max_tokens=4, temperature=0)
    assert choice.text == prompt + without.choices[0].text


async def test_many_clients_at_once_get_what_one_gets(api: openai.AsyncOpenAI) -> None:
    questions = [f"What is {number} plus {number + 3}?" for number in range(20)]

    async def answer(question: str) -> str | None:
        completion = await api.chat.completions.create(
            model=MODEL, messages=ask(question), temperature=0, max_tokens=24
        )
        return completion.choices[0].message.content

    together = await asyncio.gather(*map(answer, questions))
    assert together == [await answer(question) for question in questions]


async def test_wrong_requests_are_refused_in_the_client_s_words(api: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        await api.chat.completions.create(model="no-such-model", messages=ask("Hi"))
    with pytest.raises(openai.BadRequestError, match=r"\b5000\b.*\b4096\b"):
        await api.completions.create(model=MODEL, prompt=[5] * 5000)
    with pytest.raises(openai.BadRequestError, match=r"\b4000\b.*\b1000\b.*\b4096\b"):
        await api.completions.create(model=MODEL, prompt=[5] * 4000, max_tokens=1000)
    with pytest.raises(openai.BadRequestError, match="top_p"):
        await api.chat.completions.create(model=MODEL, messages=ask("Hi"), top_p=2.0)
    with pytest.raises(openai.BadRequestError):
        await api.chat.completions.create(
            model=MODEL,
            messages=ask("Hi"),
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "no such type"}},
            },
        )


async def test_a_server_on_loopback_goes_by_local_names(server: ServerProcess) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as http:
        for host, status in (("localhost", 200), ("rebound.example", 403)):
            answer = await http.get("/v1/models", headers={"host": host})
            assert answer.status_code == status


@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["without_end", "complete"])
async def test_large_headers_are_refused(server: ServerProcess, end: bytes) -> None:
    url = httpx2.URL(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    # Barely too large: what a server has not read when it closes may reset the connection.
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 65_536 + b"\r\n" + end)
    assert (await reader.readline()).split()[1] == b"431"
    writer.close()
