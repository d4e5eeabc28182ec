from __future__ import annotations

import httpx2

from novacron.engine.client import EngineState
from novacron.testing.fake_engine_client import FakeEngineClient


async def test_each_name_is_listed(http: httpx2.AsyncClient) -> None:
    listed = (await http.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["fake", "org/alias"]
    card = (await http.get("/v1/models/org/alias")).json()
    assert card["object"] == "model"
    assert card["root"] == "fake"
    assert card["max_model_len"] == 2048
    assert card["status"] == {"value": "loaded"}


async def test_while_loading_the_length_is_not_known(
    http: httpx2.AsyncClient, client: FakeEngineClient
) -> None:
    client.enter(EngineState.LOADING)
    card = (await http.get("/v1/models/fake")).json()
    assert card["max_model_len"] is None
    assert card["status"] == {"value": "loading"}


async def test_an_unknown_model_is_404(http: httpx2.AsyncClient) -> None:
    response = await http.get("/v1/models/other")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
