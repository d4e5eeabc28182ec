from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx2
import pytest

from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient

SECRET = "a-very-private-prompt"


async def test_the_client_s_request_id_is_echoed_and_shows_in_the_answer(
    http: httpx2.AsyncClient,
) -> None:
    response = await http.post(
        "/v1/completions", json={"prompt": "hi"}, headers={"x-request-id": "trace-1"}
    )
    assert response.headers["x-request-id"] == "trace-1"
    assert response.json()["id"] == "cmpl-trace-1"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "newline\x0b", "<script>"])
async def test_an_unsound_request_id_is_replaced(http: httpx2.AsyncClient, sent: str) -> None:
    response = await http.get("/health", headers={"x-request-id": sent})
    assert response.headers["x-request-id"] not in ("", sent)


async def test_errors_carry_a_request_id_too(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/nowhere")).headers["x-request-id"]


@pytest.mark.parametrize("announce", [True, False])
async def test_a_body_that_is_too_large_is_refused(
    client: FakeEngineClient, make_http, announce: bool
) -> None:
    http = make_http(build_app(client, ServerConfig(max_body_bytes=100), model_names=("fake",)))
    body = b'{"prompt": "' + b"x" * 200 + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50):
            yield body[start : start + 50]

    response = await http.post(
        "/v1/completions",
        content=body if announce else pieces(),
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 413
    assert "100 bytes" in response.json()["error"]["message"]
    assert client.submitted == []


async def test_the_access_log_has_no_content(
    client: FakeEngineClient, make_http, caplog: pytest.LogCaptureFixture
) -> None:
    http = make_http(build_app(client, ServerConfig(access_log=True), model_names=("fake",)))
    with caplog.at_level(logging.DEBUG):
        await http.post(f"/v1/completions?q={SECRET}", json={"prompt": SECRET})
    [line] = [r.getMessage() for r in caplog.records if r.name == "novacron.access"]
    assert line.startswith("POST /v1/completions 200 ")
    assert not any(SECRET in r.getMessage() for r in caplog.records if "novacron" in r.name)


async def test_a_path_cannot_forge_a_line_of_the_log(
    client: FakeEngineClient, make_http, caplog: pytest.LogCaptureFixture
) -> None:
    http = make_http(build_app(client, ServerConfig(access_log=True), model_names=("fake",)))
    with caplog.at_level(logging.INFO):
        await http.get("/nowhere%0A12:00:00 ERROR all is lost%1B[2J")
    [line] = [r.getMessage() for r in caplog.records if r.name == "novacron.access"]
    assert line.isprintable()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"stream": True}),
        ("/v1/chat/completions", {"temperature": -1}),
        ("/v1/chat/completions", {"guided_grammar": SECRET}),
        ("/v1/chat/completions", {"model": SECRET}),
        ("/api/v1/llm/chat/completions", {"stream": True}),
        ("/tokenize", {}),
    ],
)
async def test_no_log_line_has_content_or_keys(
    client: FakeEngineClient,
    make_http,
    caplog: pytest.LogCaptureFixture,
    path: str,
    fields: dict[str, object],
) -> None:
    key = "a-very-private-key"
    config = ServerConfig(access_log=True, api_key=(key,))
    http = make_http(build_app(client, config, model_names=("fake",)))
    body = {"messages": [{"role": "user", "content": SECRET}], **fields}
    with caplog.at_level(logging.DEBUG):
        for sent_key in (key, key + "?"):
            await http.post(path, json=body, headers={"x-api-key": sent_key})
    assert caplog.records
    for record in caplog.records:
        assert SECRET not in record.getMessage() + (record.exc_text or "")
        assert key not in record.getMessage() + (record.exc_text or "")


async def test_no_access_log_unless_wanted(
    http: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await http.get("/health")
    assert not [r for r in caplog.records if r.name == "novacron.access"]


async def test_cors_is_closed_unless_an_origin_is_named(
    client: FakeEngineClient, http: httpx2.AsyncClient, make_http
) -> None:
    origin = {"origin": "https://page.example"}
    assert "access-control-allow-origin" not in (await http.get("/health", headers=origin)).headers
    config = ServerConfig(cors_allow_origins=("https://page.example",), api_key=("key",))
    open_to_page = make_http(build_app(client, config, model_names=("fake",)))
    preflight = await open_to_page.options(
        "/v1/models", headers={**origin, "access-control-request-method": "GET"}
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://page.example"
