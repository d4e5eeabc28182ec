from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from novacron.config.server import ServerConfig
from novacron.engine.client import EngineState
from novacron.gateway.app import build_app
from novacron.gateway.native.replies import Stopwatch
from novacron.records.output import RequestOutput
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.waiting import until

BASE = "/api/v1/llm"
HELLO = [{"role": "user", "content": "hello"}]


def events_of(text: str) -> list[Any]:
    frames = [frame for frame in text.split("\n\n") if frame]
    events = []
    for frame in frames:
        number, data = frame.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert number == f"id: {events[-1]['sequence_number']}"
    return events


async def test_a_chat_in_the_seeds_words(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    body = {
        "model_id": "fake",
        "messages": HELLO,
        "stop_sequences": ["zzz"],
        "priority": "high",
        "request_id": "my-1",
        "session_id": "session",
        "quality_preference": "balanced",
        "quantization": "int8",
        "batch_size": 4,
        "max_tokens": 100,
    }
    answer = (await http.post(f"{BASE}/chat/completions", json=body)).json()
    assert (answer["request_id"], answer["session_id"]) == ("my-1", "session")
    [choice] = answer["choices"]
    assert choice["text"] == choice["message"]["content"] == "The answer is 42."
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] > 0
    assert answer["model_info"]["id"] == "fake"
    performance = answer["performance"]
    assert performance["total_time_ms"] >= performance["time_to_first_token_ms"] >= 0
    assert performance["tokens_per_second"] > 0
    [request] = client.submitted
    assert request.sampling.stop == ("zzz",)
    assert request.priority == -10


async def test_openai_s_spelling_works_as_well(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    body = {"model": "fake", "prompt": "hello", "stop": "zzz", "priority": 3}
    answer = (await http.post(f"{BASE}/completions", json=body)).json()
    [choice] = answer["choices"]
    assert choice["text"] == "The answer is 42."
    assert "message" not in choice
    assert client.submitted[0].priority == 3


@pytest.mark.parametrize("priority", ["urgent", 2**40, 1.5, []])
async def test_an_unknown_priority_is_refused(http: httpx2.AsyncClient, priority: Any) -> None:
    body = {"messages": HELLO, "priority": priority}
    response = await http.post(f"{BASE}/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "priority"


@pytest.mark.parametrize("kind", ["chat", "text"])
async def test_a_stream_has_numbered_events_and_can_be_read_again(
    http: httpx2.AsyncClient, kind: str
) -> None:
    url, content = (
        ("/chat/completions", {"messages": HELLO}) if kind == "chat"
        else ("/completions", {"prompt": "hello"})
    )  # fmt: skip
    body = {**content, "stream": True, "request_id": "s-1", "session_id": "x"}
    response = await http.post(BASE + url, json=body)
    events = events_of(response.text)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [e["type"] for e in events] == ["metadata", *["token"] * (len(events) - 2), "complete"]
    assert {event["request_id"] for event in events} == {"s-1"}
    assert "".join(e["data"]["text"] for e in events[1:-1]) == "The answer is 42."
    assert events[0]["data"]["session_id"] == "x"
    assert events[-1]["data"]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["data"]["usage"]["prompt_tokens"] == events[0]["data"]["prompt_tokens"]

    again = await http.get(f"{BASE}/stream/s-1")
    assert events_of(again.text) == events
    resumed = await http.get(f"{BASE}/stream/s-1", headers={"Last-Event-ID": "2"})
    assert events_of(resumed.text) == events[3:]
    asked = await http.get(f"{BASE}/stream/s-1?from=1", headers={"Last-Event-ID": "2"})
    assert events_of(asked.text) == events[1:]
    nothing = await http.get(f"{BASE}/stream/s-1", headers={"Last-Event-ID": str(len(events) - 1)})
    assert nothing.status_code == 204


async def test_a_whole_answer_leaves_its_events_too(http: httpx2.AsyncClient) -> None:
    await http.post(f"{BASE}/chat/completions", json={"messages": HELLO, "request_id": "w-1"})
    assert events_of((await http.get(f"{BASE}/stream/w-1")).text)[-1]["type"] == "complete"


async def test_an_id_in_use_is_refused_until_its_stream_is_gone(http: httpx2.AsyncClient) -> None:
    body = {"messages": HELLO, "request_id": "same"}
    assert (await http.post(f"{BASE}/chat/completions", json=body)).status_code == 200
    refused = await http.post(f"{BASE}/chat/completions", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "request_id"


async def test_a_repeated_x_request_id_is_no_obstacle(http: httpx2.AsyncClient) -> None:
    headers = {"x-request-id": "again"}
    url = f"{BASE}/chat/completions"
    first = await http.post(url, json={"messages": HELLO}, headers=headers)
    second = await http.post(url, json={"messages": HELLO}, headers=headers)
    assert first.json()["request_id"] == "again"
    assert second.status_code == 200
    assert second.json()["request_id"] != "again"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_call_has_its_status_and_leaves_its_id_free(
    http: httpx2.AsyncClient, client: FakeEngineClient, stream: bool
) -> None:
    body = {"messages": HELLO, "request_id": "r-1", "stream": stream}
    client.enter(EngineState.DRAINING)
    refused = await http.post(f"{BASE}/chat/completions", json=body)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    client.enter(EngineState.READY)
    assert (await http.post(f"{BASE}/chat/completions", json=body)).status_code == 200


async def test_an_error_after_the_start_is_an_event(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.step_s = 0.001
    body = {"messages": HELLO, "request_id": "e-1", "stream": True}
    posting = asyncio.create_task(http.post(f"{BASE}/chat/completions", json=body))
    await until(lambda: client.stats.generation_tokens >= 2)
    client.die()
    events = events_of((await posting).text)
    assert events[-1]["type"] == "error"
    assert events[-1]["data"]["code"] == "engine_dead"


async def test_a_background_call_runs_without_a_reader_and_can_be_read_and_cancelled(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.step_s = 0.001
    body = {"messages": HELLO, "request_id": "b-1", "background": True, "ignore_eos": True}
    accepted = await http.post(f"{BASE}/chat/completions", json=body)
    assert accepted.status_code == 202
    assert accepted.json() == {
        "request_id": "b-1",
        "stream_url": f"{BASE}/stream/b-1",
        "status": "accepted",
    }
    await until(lambda: client.stats.generation_tokens >= 5)
    reading = asyncio.create_task(http.get(accepted.json()["stream_url"]))
    assert (await http.delete(f"{BASE}/requests/b-1")).json()["status"] == "cancelled"
    events = events_of((await reading).text)
    assert events[-1]["data"]["choices"][0]["finish_reason"] == "abort"
    assert client.aborted == [client.submitted[0].request_id]
    assert (await http.delete(f"{BASE}/requests/b-1")).status_code == 404


async def test_an_unknown_stream_is_404(http: httpx2.AsyncClient) -> None:
    response = await http.get(f"{BASE}/stream/nothing")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "request_not_found"


@pytest.mark.parametrize("sent", ["-1", "x", "1" * 16, "\u0661"])
async def test_an_unsound_last_event_id_is_refused(http: httpx2.AsyncClient, sent: str) -> None:
    headers = {"Last-Event-ID": sent.encode()}
    assert (await http.get(f"{BASE}/stream/any", headers=headers)).status_code == 400


async def test_a_server_that_keeps_nothing_still_answers(
    client: FakeEngineClient, make_http: Any
) -> None:
    app = build_app(client, ServerConfig(replay_seconds=0), model_names=("fake",))
    body = {"messages": HELLO, "stream": True, "request_id": "gone"}
    http = make_http(app)
    events = events_of((await http.post(f"{BASE}/chat/completions", json=body)).text)
    assert events[-1]["type"] == "complete"
    assert (await http.get(f"{BASE}/stream/gone")).status_code == 404


async def test_the_events_of_a_stream_that_outgrew_the_buffer_are_gone(
    client: FakeEngineClient, make_http: Any
) -> None:

    config = ServerConfig(replay_buffer_bytes=2000)
    http = make_http(build_app(client, config, model_names=("fake",)))
    client.step_s = 0.001
    body = {
        "messages": HELLO,
        "request_id": "long",
        "background": True,
        "ignore_eos": True,
        "max_tokens": 50,
    }
    await http.post(f"{BASE}/chat/completions", json=body)
    await until(lambda: client.stats.generation_tokens >= 40)
    lost = await http.get(f"{BASE}/stream/long")
    assert lost.status_code == 410
    assert lost.json()["error"]["code"] == "events_lost"


async def test_a_bug_of_ours_is_logged_and_ends_the_stream_with_an_error(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Stopwatch, output: RequestOutput) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Stopwatch, "see", broken)
    body = {"prompt": "a-very-private-prompt", "stream": True}
    response = await http.post(f"{BASE}/completions", json=body)
    last = events_of(response.text)[-1]
    assert last["type"] == "error"
    assert "unexpected" in last["data"]["message"]
    assert "ZeroDivisionError" in caplog.text
    assert "a-very-private-prompt" not in caplog.text
