from __future__ import annotations

import pytest

from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@pytest.mark.parametrize("https", [False, True])
async def test_every_answer_tells_browsers_to_keep_to_reading(
    client: FakeEngineClient, make_http, https: bool
) -> None:
    config = ServerConfig(api_key=("key",), tls_cert="server.pem" if https else "")
    http = make_http(build_app(client, config, model_names=("fake",)))
    key = {"x-api-key": "key"}
    answers = [
        await http.get("/health"),
        await http.get("/v1/models"),
        await http.get("/nowhere", headers=key),
        await http.get("/docs", headers=key),
        await http.post("/v1/chat/completions", json=CHAT, headers=key),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 404, 200, 200]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert ("strict-transport-security" in answer.headers) is https


async def test_a_header_of_the_answer_itself_stays(client: FakeEngineClient, make_http) -> None:
    http = make_http(build_app(client, ServerConfig(), model_names=("fake",)))
    stream = await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert stream.headers.get_list("cache-control") == ["no-cache"]
    assert stream.headers["x-content-type-options"] == "nosniff"
