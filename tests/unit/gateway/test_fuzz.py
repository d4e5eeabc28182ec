"""Whatever JSON comes, the server answers, and never with 5xx."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.anthropic.schema import MessagesBody
from novacron.gateway.app import build_app
from novacron.gateway.native.schema import NativeChatBody, NativeCompletionBody
from novacron.gateway.ollama.schema import GenerateBody, OllamaChatBody
from novacron.gateway.openai.responses_api.schema import ResponsesBody
from novacron.gateway.openai.schema import ChatBody, CompletionBody, EmbeddingBody, TokenizeBody
from novacron.gateway.scoring.schema import RerankBody, ScoreBody
from novacron.testing.fake_engine_client import FakeEngineClient

BODIES = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/embeddings": EmbeddingBody,
    "/api/v1/llm/chat/completions": NativeChatBody,
    "/api/v1/llm/completions": NativeCompletionBody,
    "/tokenize": TokenizeBody,
    "/v1/messages": MessagesBody,
    "/v1/responses": ResponsesBody,
    "/v1/rerank": RerankBody,
    "/v1/score": ScoreBody,
    "/api/chat": OllamaChatBody,
    "/api/generate": GenerateBody,
}
GOOD = {
    "messages": [{"role": "user", "content": "hi"}],
    "prompt": "hi",
    "input": "hi",
    "query": "hi",
    "documents": ["hi", "ho"],
    "text_1": "hi",
    "text_2": "ho",
    "model": "fake",
    "max_tokens": 3,
}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system"]) | scalars},
    optional={
        "content": json_values,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"function": st.fixed_dictionaries({"name": scalars, "arguments": json_values})}
            ),
            max_size=2,
        ),
        "name": json_values,
    },
)


@st.composite
def bodies(draw: st.DrawFn, path: str) -> dict[str, Any]:
    fields = list(BODIES[path].model_fields)
    body = {name: GOOD[name] for name in GOOD if name in fields and name != "prompt"}
    if "prompt" in fields and "messages" not in fields:
        body["prompt"] = GOOD["prompt"]
    body |= draw(
        st.dictionaries(st.sampled_from(fields) | st.text(max_size=6), json_values, max_size=4)
    )
    if "messages" in fields and draw(st.booleans()):
        body["messages"] = draw(st.lists(messages, max_size=3))
    return body


@pytest.fixture
async def strict_http(tokenizer: Tokenizer) -> AsyncIterator[httpx2.AsyncClient]:
    """Raises what the app raises."""
    client = FakeEngineClient(tokenizer, max_model_len=64)
    app = build_app(client, ServerConfig(), model_names=("fake",))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


@pytest.mark.parametrize("path", BODIES)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_no_body_is_a_server_error(
    strict_http: httpx2.AsyncClient, path: str, data: st.DataObject
) -> None:
    response = await strict_http.post(path, json=data.draw(bodies(path)))
    assert response.status_code < 500
    if response.status_code >= 400:
        assert told(response.json()["error"])


def told(error: Any) -> str:
    """Ollama's errors are the message alone."""
    return error if isinstance(error, str) else error["message"]


TEXTS = {path: json.dumps(GOOD) for path in BODIES} | {
    "/api/v1/llm/batch/completions": json.dumps({"requests": [GOOD], "defaults": {"n": 1}}),
    "/api/v1/llm/models/fake/load": json.dumps({"worker_count": 1}),
    "/api/v1/llm/cluster/scale": json.dumps({"worker_count": 1}),
    "/detokenize": json.dumps({"tokens": [5, 6]}),
}
ODD_BYTES = (
    b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\xef\xbb\xbf", b"NaN", b"1e999", b"9" * 400,
    b'"', b"{", b"]", b",", b"",
)  # fmt: skip


@pytest.mark.parametrize("path", TEXTS)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 120), st.integers(0, 4), st.sampled_from(ODD_BYTES)), max_size=3
    )
)
async def test_no_damage_to_a_body_is_a_server_error(
    http: httpx2.AsyncClient, path: str, edits: list[tuple[int, int, bytes]]
) -> None:
    body = TEXTS[path].encode()
    for place, num_cut, inserted in edits:
        body = body[:place] + inserted + body[place + num_cut :]
    response = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code < 500 or response.status_code == 501
    if response.status_code >= 400:
        assert told(response.json()["error"])


def nested(depth: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


@pytest.mark.parametrize("depth", [60, 250, 260, 900])
@pytest.mark.parametrize("kind", ["list", "object"])
@pytest.mark.parametrize(
    "place",
    [
        "extra",
        "message_extra",
        "message_content",
        "tool_arguments",
        "tool_arguments_text",
        "tool_parameters",
        "chat_template_kwargs",
        "guided_json",
        "defaults",
    ],
)
async def test_deep_nesting_is_no_server_error(
    http: httpx2.AsyncClient, place: str, kind: str, depth: int
) -> None:
    deep = nested(depth, kind)
    call = {"function": {"name": "f", "arguments": deep}}
    bodies = {
        "extra": {"extra": deep},
        "message_extra": {"messages": [{"role": "user", "content": "x", "extra": deep}]},
        "message_content": {"messages": [{"role": "user", "content": deep}]},
        "tool_arguments": {"messages": [{"role": "assistant", "tool_calls": [call]}]},
        "tool_arguments_text": {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": json.dumps(deep)}}],
                }
            ]
        },
        "tool_parameters": {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": deep}}}]
        },
        "chat_template_kwargs": {"chat_template_kwargs": {"x": deep}},
        "guided_json": {"guided_json": {"x": deep}},
        "defaults": {"x": deep},
    }
    chat = {"messages": GOOD["messages"], **bodies[place]}
    url = "/v1/chat/completions"
    if place == "defaults":
        url, chat = "/api/v1/llm/batch/completions", {"requests": [chat], "defaults": chat}
    response = await http.post(url, json=chat)
    assert response.status_code < 500


async def test_what_can_just_be_read_but_not_written_again_is_refused(
    http: httpx2.AsyncClient,
) -> None:
    messages_json = json.dumps(GOOD["messages"])
    headers = {"content-type": "application/json"}
    for depth in range(800, 1000, 4):
        deep = '{"a":' * depth + "1" + "}" * depth
        body = f'{{"messages": {messages_json}, "guided_json": {deep}}}'
        response = await http.post("/v1/chat/completions", content=body, headers=headers)
        assert response.status_code in (200, 400)
