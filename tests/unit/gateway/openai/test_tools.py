from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import CHAT_TEMPLATE, FakeEngineClient, fake_tokenizer

URL = "/v1/chat/completions"
ASK = [{"role": "user", "content": "weather in Paris?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}. Answer with <tool_call>"
    "<|im_end|>\n{% endif %}" + CHAT_TEMPLATE
)


@pytest.fixture
def client(tmp_path_factory: pytest.TempPathFactory) -> FakeEngineClient:
    tokenizer = fake_tokenizer(tmp_path_factory.mktemp("tools"), TEMPLATE)
    return FakeEngineClient(tokenizer, reply=lambda request: f"I look.\n{CALL}")


@pytest.fixture
def http(client: FakeEngineClient, make_http: Any) -> httpx2.AsyncClient:
    return make_http(build_app(client, ServerConfig(), model_names=("fake",)))


def prompt_of(client: FakeEngineClient) -> str:
    ids = client.submitted[-1].prompt_token_ids
    return client.tokenizer.decode(ids, skip_special_tokens=False)


async def test_a_call_in_the_text_becomes_a_tool_call(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    answer = (await http.post(URL, json={"messages": ASK, "tools": [WEATHER]})).json()
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "I look."
    [call] = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert "get_weather" in prompt_of(client)


async def test_a_stream_has_the_id_and_name_first_and_then_arguments(
    http: httpx2.AsyncClient,
) -> None:
    body = {"messages": ASK, "tools": [WEATHER], "stream": True, "logprobs": True}
    text = (await http.post(URL, json=body)).text
    chunks = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    choices = [chunk["choices"][0] for chunk in chunks]
    content = "".join(c["delta"].get("content", "") for c in choices)
    pieces = [piece for c in choices for piece in c["delta"].get("tool_calls", ())]
    assert content == "I look."
    assert pieces[0]["id"].startswith("call_")
    assert pieces[0]["function"]["name"] == "get_weather"
    assert not any("id" in piece for piece in pieces[1:])
    arguments = "".join(piece["function"].get("arguments", "") for piece in pieces)
    assert json.loads(arguments) == {"city": "Paris"}
    assert choices[-1]["finish_reason"] == "tool_calls"
    num_logprobs = sum(len(c["logprobs"]["content"]) for c in choices if c["logprobs"])
    whole = (await http.post(URL, json={**body, "stream": False})).json()
    assert num_logprobs == len(whole["choices"][0]["logprobs"]["content"])


async def test_tools_that_may_not_be_used_are_not_shown_nor_looked_for(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    body = {"messages": ASK, "tools": [WEATHER], "tool_choice": "none"}
    [choice] = (await http.post(URL, json=body)).json()["choices"]
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]
    assert "get_weather" not in prompt_of(client)


@pytest.mark.parametrize(
    "tool_choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
async def test_a_forced_call_is_a_grammar(
    http: httpx2.AsyncClient, client: FakeEngineClient, tool_choice: Any
) -> None:
    body = {"messages": ASK, "tools": [WEATHER], "tool_choice": tool_choice}
    assert (await http.post(URL, json=body)).status_code == 200
    constraint = client.submitted[0].sampling.structured_output
    assert constraint is not None
    assert constraint.kind == "grammar"
    assert "get_weather" in constraint.spec


async def test_without_parallel_calls_only_the_first_counts(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.reply = lambda request: CALL + "\n" + CALL
    body = {"messages": ASK, "tools": [WEATHER]}
    both = (await http.post(URL, json=body)).json()["choices"][0]["message"]
    assert len(both["tool_calls"]) == 2
    assert both["content"] is None
    body["parallel_tool_calls"] = False
    first = (await http.post(URL, json=body)).json()["choices"][0]["message"]
    assert len(first["tool_calls"]) == 1
    streamed = (await http.post(URL, json={**body, "stream": True})).text
    assert streamed.count('"id":"call_') == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tool_choice": "required", "guided_regex": "a"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0.type"),
    ],
)
async def test_tools_that_cannot_be_used_are_refused(
    http: httpx2.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    response = await http.post(URL, json={"messages": ASK, "tools": [WEATHER], **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_a_template_that_teaches_no_calls_is_told(tokenizer: Any, make_http: Any) -> None:
    http = make_http(build_app(FakeEngineClient(tokenizer), ServerConfig(), model_names=("m",)))
    error = (await http.post(URL, json={"messages": ASK, "tools": [WEATHER]})).json()["error"]
    assert error["param"] == "tools"
    assert "chat template" in error["message"]
