from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from novacron.gateway.calls import CallOrigin
from novacron.gateway.openai.chat import ChatReply, parse_chat
from novacron.gateway.openai.schema import ChatBody
from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason
from novacron.testing.fake_engine_client import FakeEngineClient

URL = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]


def events(text: str) -> list[Any]:
    """The chunks of a stream, which must end with [DONE]."""
    frames = text.removesuffix("\n\n").split("\n\n")
    assert frames.pop() == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


async def test_an_answer_has_what_openai_s_clients_look_for(http: httpx2.AsyncClient) -> None:
    response = await http.post(URL, json={"model": "fake", "messages": HELLO})
    answer = response.json()
    assert response.status_code == 200
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "fake"
    [choice] = answer["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "The answer is 42.",
        "refusal": None,
    }
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


async def test_a_stream_says_the_same_as_the_whole(http: httpx2.AsyncClient) -> None:
    body = {"messages": HELLO, "logprobs": True, "top_logprobs": 2, "seed": 1, "max_tokens": 6}
    whole = (await http.post(URL, json=body)).json()
    streamed = await http.post(
        URL, json={**body, "stream": True, "stream_options": {"include_usage": True}}
    )
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *chunks, last = events(streamed.text)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    deltas = [chunk["choices"][0] for chunk in chunks]
    assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
    [choice] = whole["choices"]
    assert "".join(d["delta"].get("content", "") for d in deltas) == choice["message"]["content"]
    positions = [p for d in deltas if d["logprobs"] for p in d["logprobs"]["content"]]
    assert positions == choice["logprobs"]["content"]
    assert len(positions[0]["top_logprobs"]) == 2
    assert [d["finish_reason"] for d in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1]["finish_reason"] == choice["finish_reason"] == "length"
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_usage_is_absent_from_chunks_unless_wanted(http: httpx2.AsyncClient) -> None:
    streamed = await http.post(URL, json={"messages": HELLO, "stream": True})
    assert all("usage" not in chunk for chunk in events(streamed.text))


async def test_n_choices_share_the_prompt_but_not_the_seed(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    answer = (await http.post(URL, json={"messages": HELLO, "n": 3, "seed": 2**63 - 1})).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({request.sampling.seed for request in client.submitted}) == 3
    assert answer["usage"]["prompt_tokens"] == len(client.submitted[0].prompt_token_ids)
    streamed = await http.post(URL, json={"messages": HELLO, "n": 3, "stream": True})
    chunks = events(streamed.text)
    roles = [c["choices"][0]["index"] for c in chunks if "role" in c["choices"][0]["delta"]]
    assert sorted(roles) == [0, 1, 2]


async def test_all_sampling_fields_reach_the_engine(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    body = {
        "messages": HELLO,
        "max_completion_tokens": 9,
        "max_tokens": 3,
        "min_tokens": 2,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": -1,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.2,
        "presence_penalty": -0.3,
        "logit_bias": {"5": -100},
        "seed": -4,
        "stop": "zzz",
        "stop_token_ids": [7],
        "include_stop_str_in_output": True,
        "ignore_eos": True,
        "skip_special_tokens": False,
        "priority": -2,
        "cache_salt": "tenant",
        "unknown_field": {"accepted": True},
    }
    assert (await http.post(URL, json=body)).status_code == 200
    [request] = client.submitted
    sampling = request.sampling
    assert (request.priority, request.cache_salt) == (-2, "tenant")
    assert (sampling.max_tokens, sampling.min_tokens) == (9, 2)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.0, 0.5, 0)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.1)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.2, -0.3)
    assert sampling.logit_bias == {5: -100.0}
    assert (sampling.stop, sampling.stop_token_ids) == (("zzz",), (7,))
    assert sampling.include_stop_str_in_output
    assert sampling.ignore_eos
    assert not sampling.skip_special_tokens


async def test_nulls_mean_defaults(http: httpx2.AsyncClient, client: FakeEngineClient) -> None:
    optional = {name: None for name in ChatBody.model_fields if name != "messages"}
    assert (await http.post(URL, json={"messages": HELLO, **optional})).status_code == 200
    [request] = client.submitted
    assert (request.sampling.temperature, request.sampling.top_p) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": None}, "messages", "list"),
        ({"messages": [{"content": "x"}]}, "messages.0.role", "required"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0",
            "'image_url'",
        ),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_tokens": 10**6}, "max_tokens", "2048"),
        ({"top_logprobs": 3}, "top_logprobs", "logprobs"),
        ({"n": 0}, "n", "1"),
        ({"stop": [""]}, "stop.0", "at least 1 character"),
        ({"stop": ""}, "stop", "between 1 and 1024"),
        ({"logit_bias": {"five": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", "99999"),
        ({"stop_token_ids": [99999]}, "stop_token_ids", "99999"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema.schema",
            "needs",
        ),
        ({"guided_regex": "a", "guided_json": {}}, "guided_regex", "only one"),
        ({"structured_outputs": {}}, "structured_outputs", "exactly one"),
        ({"tool_choice": "required"}, "tools", "no tools"),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
            "exclude",
        ),
    ],
)
async def test_what_is_wrong_is_said_with_the_field(
    http: httpx2.AsyncClient,
    client: FakeEngineClient,
    fields: dict[str, Any],
    param: str,
    words: str,
) -> None:
    response = await http.post(URL, json={"messages": HELLO, **fields})
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]
    assert client.submitted == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not valid JSON"),
        (b'{"messages": NaN}', "not valid JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
        (b"", "JSON object"),
    ],
)
async def test_bodies_that_are_no_json_object(
    http: httpx2.AsyncClient, content: bytes, words: str
) -> None:
    headers = {"content-type": "application/json"}
    response = await http.post(URL, content=content, headers=headers)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]


async def test_a_body_without_the_json_content_type_is_told_so(http: httpx2.AsyncClient) -> None:
    response = await http.post(URL, content=b'{"messages": []}')
    assert response.status_code == 400
    assert "application/json" in response.json()["error"]["message"]


async def test_an_unknown_model_is_named_with_those_that_are_served(
    http: httpx2.AsyncClient,
) -> None:
    response = await http.post(URL, json={"model": "gpt-9", "messages": HELLO})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert "org/alias" in response.json()["error"]["message"]


async def test_contents_in_text_parts_and_tool_messages_reach_the_template(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "ok"},
    ]
    assert (await http.post(URL, json={"messages": messages})).status_code == 200
    text = client.tokenizer.decode(client.submitted[0].prompt_token_ids, skip_special_tokens=False)
    assert "<|im_start|>user\na\nb<|im_end|>" in text
    assert "<|im_start|>tool\nok<|im_end|>" in text


async def test_tool_arguments_that_are_no_json_are_refused(http: httpx2.AsyncClient) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{x"}}]
    messages = [*HELLO, {"role": "assistant", "tool_calls": calls}]
    error = (await http.post(URL, json={"messages": messages})).json()["error"]
    assert error["param"] == "messages.1.tool_calls.0.function.arguments"


@pytest.mark.parametrize(
    ("fields", "kind", "spec"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object", ""),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "object"}},
                }
            },
            "json_schema",
            '{"type": "object"}',
        ),
        ({"guided_json": '{"type": "object"}'}, "json_schema", '{"type": "object"}'),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_choice": ["a", "b"]}, "choice", '["a", "b"]'),
        ({"guided_grammar": "start: /a/"}, "grammar", "start: /a/"),
        ({"structured_outputs": {"json": {"type": "null"}}}, "json_schema", '{"type": "null"}'),
        ({"structured_outputs": {"choice": ["x"]}}, "choice", '["x"]'),
        ({"structured_outputs": {"json_object": True}}, "json_object", ""),
    ],
)
async def test_constraints_on_the_text(
    http: httpx2.AsyncClient,
    client: FakeEngineClient,
    fields: dict[str, Any],
    kind: str,
    spec: str,
) -> None:
    assert (await http.post(URL, json={"messages": HELLO, **fields})).status_code == 200
    constraint = client.submitted[0].sampling.structured_output
    assert constraint is not None
    assert (constraint.kind, constraint.spec) == (kind, spec)


async def test_no_constraint_without_one(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    await http.post(URL, json={"messages": HELLO, "response_format": {"type": "text"}})
    assert client.submitted[0].sampling.structured_output is None


async def test_prompt_logprobs_are_vllm_s(http: httpx2.AsyncClient) -> None:
    answer = (await http.post(URL, json={"messages": HELLO, "prompt_logprobs": 1})).json()
    first, *others = answer["prompt_logprobs"]
    assert first is None
    assert len(others) == answer["usage"]["prompt_tokens"] - 1
    assert all(isinstance(entry["logprob"], float) for entry in others[0].values())


async def test_a_request_that_the_engine_fails_is_a_500_with_its_words(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.fail_with = "The logits were not finite."
    response = await http.post(URL, json={"messages": HELLO})
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "The logits were not finite."
    assert response.json()["error"]["code"] == "request_failed"


def test_outputs_without_news_make_no_frames(client: FakeEngineClient, origin: CallOrigin) -> None:
    reply = make_reply(client, origin)
    opening = reply.frames(RequestOutput(request_id="r", token_ids=(5,)))
    assert b'"role":"assistant"' in opening
    assert reply.frames(RequestOutput(request_id="r", token_ids=(6,))) == b""


@pytest.mark.parametrize("text", ["\u2028 line", 'quote " and \\', "emoji \U0001f642", "\n\n"])
def test_any_text_survives_framing(client: FakeEngineClient, origin: CallOrigin, text: str) -> None:
    reply = make_reply(client, origin)
    done = RequestOutput(request_id="r", token_ids=(5,), text=text, finish_reason=FinishReason.STOP)
    chunks = events((reply.frames(done) + reply.last_frames()).decode())
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == text


def make_reply(client: FakeEngineClient, origin: CallOrigin) -> ChatReply:
    return parse_chat(ChatBody.model_validate({"messages": HELLO}), origin, client.tokenizer)
