from __future__ import annotations

import httpx2
import pytest

from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient


@pytest.fixture
def guarded(client: FakeEngineClient, make_http) -> httpx2.AsyncClient:
    config = ServerConfig(api_key=("first-key", "second-key"))
    return make_http(build_app(client, config, model_names=("fake",)))


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key"},
        {"Authorization": "bearer second-key"},
        {"x-api-key": "second-key"},
    ],
)
async def test_a_valid_key_passes(guarded: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    assert (await guarded.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic first-key"},
        {"Authorization": "Bearer first-key-and-more"},
        {"Authorization": b"Bearer f\xfcrst-key"},
        {"x-api-key": ""},
    ],
)
async def test_anything_else_is_refused_in_openai_s_shape(
    guarded: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    response = await guarded.get("/v1/models", headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"].partition(" ")[0] == "Bearer"


@pytest.mark.parametrize(
    "path", ["/metrics", "/api/v1/llm/models", "/openapi.json", "/docs", "/nowhere", "/tokenize"]
)
async def test_everything_but_the_probes_is_guarded(guarded: httpx2.AsyncClient, path: str) -> None:
    assert (await guarded.get(path)).status_code == 401


@pytest.mark.parametrize("path", ["/health", "/ready", "/version"])
async def test_probes_are_open(guarded: httpx2.AsyncClient, path: str) -> None:
    assert (await guarded.get(path)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer first-key"), ("Authorization", "Bearer wrong")],
        [("Authorization", "Bearer wrong"), ("Authorization", "Bearer first-key")],
        [("Authorization", "Bearer first-key"), ("x-api-key", "second-key")],
        [("x-api-key", "first-key"), ("x-api-key", "second-key")],
        [("Authorization", "Bearer first-key"), ("Authorization", "Basic Zmlyc3Q=")],
        [("Authorization", "Bearer first-key, Bearer first-key")],
        [("Authorization", "Bearer first-key\tx")],
        [("Authorization", "Bearer " + "x" * 20_000)],
        [("Proxy-Authorization", "Bearer first-key")],
        [("Cookie", "Authorization=Bearer first-key; x-api-key=first-key")],
        [("X_API_KEY", "first-key")],
    ],
)
async def test_ambiguous_and_misplaced_credentials_are_refused(
    guarded: httpx2.AsyncClient, headers: list[tuple[str, str]]
) -> None:
    assert (await guarded.get("/v1/models", headers=headers)).status_code == 401


async def test_the_same_key_twice_is_one_key(guarded: httpx2.AsyncClient) -> None:
    headers = [("Authorization", "Bearer first-key"), ("x-api-key", "first-key")]
    assert (await guarded.get("/v1/models", headers=headers)).status_code == 200


async def test_other_keys_than_the_first_use_and_see_but_change_nothing_for_all(
    guarded: httpx2.AsyncClient,
) -> None:
    allowed = {
        key: [
            (await guarded.request(method, path, headers={"x-api-key": key})).status_code != 403
            for method, path in (
                ("POST", "/v1/completions"),
                ("GET", "/metrics"),
                ("POST", "/api/v1/llm/cluster/scale"),
                ("POST", "/api/v1/llm/models/nowhere/load"),
            )
        ]
        for key in ("first-key", "second-key")
    }
    assert allowed == {"first-key": [True] * 4, "second-key": [True, True, False, False]}
