"""The clients of other dialects, against the bundled model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import ollama
import openai
import pydantic
import pytest

from novacron.testing.server_process import ServerProcess, StartServer

QUESTION = "What is the capital of France?"
HELLO: Any = [{"role": "user", "content": QUESTION}]


async def test_all_dialects_get_the_same_answer(
    server: ServerProcess, api: openai.AsyncOpenAI
) -> None:
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="none") as claude:
        message = await claude.messages.create(
            model="novacron-demo",
            max_tokens=4000,
            messages=HELLO,
            extra_body={"temperature": 0},
        )
        async with claude.messages.stream(
            model="novacron-demo", max_tokens=50, messages=HELLO, extra_body={"temperature": 0}
        ) as stream:
            streamed = await stream.get_final_text()
    llama = ollama.AsyncClient(host=server.url)
    chat = await llama.chat("novacron-demo", HELLO, options={"temperature": 0})
    text = await llama.generate("novacron-demo", QUESTION, options={"temperature": 0})
    await llama.close()
    response = await api.responses.create(model="novacron-demo", input=QUESTION, temperature=0)
    completion = await api.chat.completions.create(
        model="novacron-demo", messages=HELLO, temperature=0
    )
    expected = completion.choices[0].message.content
    assert expected is not None
    assert "Paris" in expected
    [block] = message.content
    assert block.type == "text"
    assert [block.text, streamed, chat.message.content, text.response, response.output_text] == (
        [expected] * 5
    )
    usage = message.usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == chat.prompt_eval_count


async def test_a_format_is_kept_in_every_dialect(
    server: ServerProcess, api: openai.AsyncOpenAI
) -> None:
    class City(pydantic.BaseModel):
        city: str

    schema = City.model_json_schema()
    response = await api.responses.parse(
        model="novacron-demo", input=QUESTION, text_format=City, temperature=0, max_output_tokens=99
    )
    llama = ollama.AsyncClient(host=server.url)
    chat = await llama.chat(
        "novacron-demo", HELLO, format=schema, options={"temperature": 0, "num_predict": 99}
    )
    await llama.close()
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="none") as claude:
        message = await claude.messages.create(
            model="novacron-demo",
            max_tokens=99,
            messages=HELLO,
            output_config={"format": {"type": "json_schema", "schema": schema}},
            extra_body={"temperature": 0},
        )
    [block] = message.content
    assert block.type == "text"
    assert response.output_parsed is not None
    for text in (chat.message.content, block.text):
        assert set(json.loads(text or "")) == {"city"}


@pytest.mark.slow
async def test_answers_outlive_the_server(start_server: StartServer, tmp_path: Path) -> None:
    """And are found by another dialect: equal prompts and parameters are equal requests."""
    url = f"sqlite://{tmp_path}/answers.db"
    arguments = ("--response-cache", "exact", "--response-cache-url", url)
    body = {"messages": HELLO, "temperature": 0, "max_tokens": 50}
    answers = []
    for path, fields in (("/v1/chat/completions", {}), ("/v1/messages", {"model": ""})):
        server = start_server(*arguments).wait_ready()
        async with httpx2.AsyncClient(base_url=server.url) as http:
            answers.append(await http.post(path, json={**body, **fields}))
        server.process.terminate()
        assert server.wait_exit() == 0
    first, again = answers
    assert [one.headers["x-novacron-cache"] for one in answers] == ["miss", "hit"]
    told = again.json()["content"][0]["text"]
    assert told == first.json()["choices"][0]["message"]["content"]
