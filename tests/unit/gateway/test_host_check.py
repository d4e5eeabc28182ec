"""A page whose name was made to point to this machine cannot use the server behind it."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from novacron.config.server import ServerConfig
from novacron.errors import ConfigError
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient

LOOPBACK = ServerConfig()
NAMED = ServerConfig(host="0.0.0.0", allowed_hosts=("llm.example.org", "*.inside.example"))


async def status(make_http, client: FakeEngineClient, config: ServerConfig, host: str) -> int:
    http = make_http(build_app(client, config, model_names=("fake",)))
    key = {"x-api-key": config.api_key[0]} if config.api_key else {}
    return (await http.get("/v1/models", headers={"host": host, **key})).status_code


@pytest.mark.parametrize("config", [LOOPBACK, ServerConfig(host="::1"), NAMED])
@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8080", "LocalHost.", "app.localhost:80",
        "127.0.0.1:8080", "127.0.0.2", "[::1]:8080", "[::1]", "10.1.2.3:8080",
    ],
)  # fmt: skip
async def test_local_names_and_addresses_pass(client, make_http, config, host: str) -> None:
    assert await status(make_http, client, config, host) == 200


@pytest.mark.parametrize("config", [LOOPBACK, ServerConfig(host="localhost"), NAMED])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example",
        "llm.example.org.evil.example", "inside.example", "notinside.example", "", ":8080", "[::1",
        "evil.example:8080:1",
    ],
)  # fmt: skip
async def test_other_names_are_refused(client, make_http, config, host: str) -> None:
    http = make_http(build_app(client, config, model_names=("fake",)))
    response = await http.get("/v1/models", headers={"host": host})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "host_not_allowed"
    assert "--allowed-hosts" in response.json()["error"]["message"]
    assert (await http.get("/health", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", ["llm.example.org", "LLM.example.org:443", "a.b.inside.example"])
async def test_names_that_are_set_pass(client, make_http, host: str) -> None:
    assert await status(make_http, client, NAMED, host) == 200
    anyone = ServerConfig(allowed_hosts=("*",))
    assert await status(make_http, client, anyone, host) == 200


@pytest.mark.parametrize("config", [ServerConfig(host="0.0.0.0"), ServerConfig(api_key=("key",))])
async def test_behind_a_service_name_or_with_a_key_nothing_is_checked(
    client, make_http, config
) -> None:
    assert await status(make_http, client, config, "novacron.default.svc:8080") == 200


async def test_with_a_key_the_names_that_are_set_count(client, make_http) -> None:
    config = ServerConfig(api_key=("key",), allowed_hosts=("llm.example.org",))
    assert await status(make_http, client, config, "llm.example.org") == 200
    assert await status(make_http, client, config, "evil.example") == 403


def test_websockets_are_checked_too(client: FakeEngineClient) -> None:
    app = build_app(client, LOOPBACK, model_names=("fake",))
    with TestClient(app) as http:
        with (
            pytest.raises(WebSocketDisconnect),
            http.websocket_connect("ws://evil.example/ws/llm/stream/a"),
        ):
            pass
        with http.websocket_connect("ws://localhost/ws/llm/stream/a") as socket:
            socket.send_json({"prompt": "hi"})
            assert socket.receive_json()["type"] == "metadata"


@pytest.mark.parametrize(
    "name", ["", "*.", "https://a.example", "a.example:80", "a*.example", "a b"]
)
def test_what_is_no_name_is_refused_at_start(name: str) -> None:
    with pytest.raises(ConfigError, match="allowed_hosts"):
        ServerConfig(allowed_hosts=(name,))
