"""Pages of other origins cannot use a server without keys through somebody's browser."""

from __future__ import annotations

import httpx2
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient

UNLOAD = "/api/v1/llm/models/fake/unload"
OTHER_PAGE = {"origin": "https://evil.example"}


@pytest.mark.parametrize(
    "headers",
    [
        OTHER_PAGE,
        {"origin": "null"},
        {"origin": "http://[broken"},
        {"origin": "http://localhost:81"},
        {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
        {"origin": "http://other.localhost", "sec-fetch-site": "same-site"},
    ],
)
async def test_another_page_cannot_unload_the_model(
    client: FakeEngineClient, http: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    response = await http.post(UNLOAD, headers=headers)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "origin_not_allowed"
    assert client.state.value == "ready"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost"},
        {"origin": "https://behind.proxy", "sec-fetch-site": "same-origin"},
    ],
)
async def test_programs_and_our_own_pages_pass(
    http: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    response = await http.post("/v1/completions", json={"prompt": "hi"}, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("allowed", ["https://evil.example", "*"])
async def test_an_origin_that_is_named_passes(
    client: FakeEngineClient, make_http, allowed: str
) -> None:
    config = ServerConfig(cors_allow_origins=(allowed,))
    http = make_http(build_app(client, config, model_names=("fake",)))
    response = await http.post("/v1/completions", json={"prompt": "hi"}, headers=OTHER_PAGE)
    assert response.status_code == 200


async def test_with_keys_the_key_decides(client: FakeEngineClient, make_http) -> None:
    http = make_http(build_app(client, ServerConfig(api_key=("key",)), model_names=("fake",)))
    body = {"prompt": "hi"}
    refused = await http.post("/v1/completions", json=body, headers=OTHER_PAGE)
    assert refused.status_code == 401
    passed = await http.post(
        "/v1/completions", json=body, headers={**OTHER_PAGE, "x-api-key": "key"}
    )
    assert passed.status_code == 200


def test_another_page_cannot_open_a_websocket(client: FakeEngineClient) -> None:
    app = build_app(client, ServerConfig(), model_names=("fake",))
    with TestClient(app) as http:
        with (
            pytest.raises(WebSocketDisconnect),
            http.websocket_connect("ws://localhost/ws/llm/stream/a", headers=OTHER_PAGE),
        ):
            pass
        with http.websocket_connect("ws://localhost/ws/llm/stream/a") as socket:
            socket.send_json({"prompt": "hi"})
            assert socket.receive_json()["type"] == "metadata"
