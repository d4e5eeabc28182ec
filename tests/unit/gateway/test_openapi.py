from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from novacron.config.server import ServerConfig
from novacron.gateway.app import build_app
from novacron.testing.fake_engine_client import FakeEngineClient


@pytest.fixture
def document(client: FakeEngineClient) -> dict[str, Any]:
    return build_app(client, ServerConfig(), model_names=("fake",)).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = {name.removeprefix("#/components/schemas/") for name in references(document)}
    assert names <= document["components"]["schemas"].keys()


def test_every_operation_says_what_it_answers_and_how_it_fails(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert "422" not in operation["responses"], name
        assert operation["responses"]["200"].get("content"), name
        if name != "get /metrics":
            assert "default" in operation["responses"], name


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))


async def test_the_document_is_served(http: httpx2.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert {"/v1/chat/completions", "/api/v1/llm/models/{model_id}/load"} <= set(document["paths"])
