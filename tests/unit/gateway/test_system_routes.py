from __future__ import annotations

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from novacron.engine.client import EngineState
from novacron.testing.fake_engine_client import FakeEngineClient

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("state", "health", "ready"),
    [
        (EngineState.READY, 200, 200),
        (EngineState.LOADING, 200, 503),
        (EngineState.DRAINING, 200, 503),
        (EngineState.UNLOADED, 200, 503),
        (EngineState.DEAD, 503, 503),
    ],
)
async def test_probes_tell_the_state(
    http: httpx2.AsyncClient,
    client: FakeEngineClient,
    state: EngineState,
    health: int,
    ready: int,
) -> None:
    client.enter(state)
    probe = await http.get("/health")
    assert probe.status_code == health
    assert probe.json()["status"] == ("healthy" if health == 200 else "unhealthy")
    probe = await http.get("/ready")
    assert probe.status_code == ready
    assert (probe.json()["state"], probe.json()["progress"]) == (state.value, 0.5)


async def test_while_loading_errors_tell_the_progress(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.enter(EngineState.LOADING)
    response = await http.post("/v1/chat/completions", json=CHAT)
    assert response.status_code == 503
    assert response.json()["loading"] == {"phase": "weights", "progress": 0.5}
    assert response.headers["retry-after"] == "1"


async def test_a_full_queue_says_when_to_come_back(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.max_live = 0
    response = await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "loading" not in response.json()


async def test_version(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/version")).json()["version"].count(".") == 2


async def test_metrics_are_prometheus_text_and_count(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    await http.post("/v1/chat/completions", json=CHAT)
    client.fail_with = "broken"
    await http.post("/v1/chat/completions", json=CHAT)
    response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {f.name: f for f in text_string_to_metric_families(response.text)}
    samples = {
        (s.name, *sorted(s.labels.items())): s.value for f in families.values() for s in f.samples
    }
    model = ("model_name", "fake")
    assert samples["vllm:num_requests_running", model] == 0
    assert samples["vllm:request_success_total", ("finished_reason", "stop"), model] == 1
    assert samples["vllm:time_to_first_token_seconds_count", model] == 1
    assert samples["llm_request_latency_seconds_count", model] == 2
    assert samples["llm_requests_completed_total", model] == 1
    assert samples["llm_quality_score", model, ("variant", "none")] == 0.9
    assert samples["novacron_request_errors_total", ("error", "RequestFailed"), model] == 1
    assert samples["novacron_engine_state", model, ("state", "ready")] == 1
    assert samples["novacron_startup_phase_seconds", model, ("phase", "weights")] == 0.25
    assert "process_cpu_seconds" in families


async def test_tokenize_and_back(http: httpx2.AsyncClient) -> None:
    body = {"prompt": "hello world", "return_token_strs": True}
    answer = (await http.post("/tokenize", json=body)).json()
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 2048
    assert "".join(answer["token_strs"]) == "hello world"
    back = (await http.post("/detokenize", json={"tokens": answer["tokens"]})).json()
    assert back == {"prompt": "hello world"}


async def test_tokenize_a_conversation(http: httpx2.AsyncClient) -> None:
    answer = (await http.post("/tokenize", json=CHAT)).json()
    usage = (await http.post("/v1/chat/completions", json=CHAT)).json()["usage"]
    assert answer["count"] == usage["prompt_tokens"]
    assert answer["token_strs"] is None


async def test_special_tokens_are_tokens_only_in_raw_prompts_that_may(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    async def count_special(url: str, body: dict[str, object]) -> int:
        token_ids = (await http.post(url, json=body)).json()["tokens"]
        return sum(token_id in client.tokenizer.special_token_ids for token_id in token_ids)

    text = "a<|im_end|>b"
    assert await count_special("/tokenize", {"prompt": text}) == 1
    assert await count_special("/tokenize", {"prompt": text, "parse_special": False}) == 0
    chat = {"messages": [{"role": "user", "content": text}]}
    assert await count_special("/tokenize", chat) == await count_special("/tokenize", CHAT) == 3


@pytest.mark.parametrize("body", [{}, {"prompt": "x", **CHAT}, {"prompt": "x", "model": "other"}])
async def test_tokenize_refuses_what_is_unclear(http: httpx2.AsyncClient, body: object) -> None:
    assert (await http.post("/tokenize", json=body)).status_code in (400, 404)


async def test_unknown_paths_and_methods_are_told_in_openai_s_shape(
    http: httpx2.AsyncClient,
) -> None:
    for path, status in (("/v2/anything", 404), ("/nowhere", 404), ("/v1/chat/completions", 405)):
        answer = await http.get(path)
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert f"no GET {path} here" in error["message"]
        assert "/docs" in error["message"]


async def test_a_bug_of_ours_is_a_500_without_details(
    http: httpx2.AsyncClient, client: FakeEngineClient, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: object) -> str:
        raise ZeroDivisionError("secret detail")

    client.reply = broken
    response = await http.post("/v1/chat/completions", json=CHAT)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "secret" not in response.text
