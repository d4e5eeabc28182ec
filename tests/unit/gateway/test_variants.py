"""The gateway over several variants of a model: names, lists, answers, health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.config.server import ServerConfig
from novacron.config.variants import Variant
from novacron.engine.tokenization import Tokenizer
from novacron.engine.variant_engines import variant_engines
from novacron.engine.variants_client import VariantsClient
from novacron.gateway.app import build_app
from novacron.records.output import WatchStats
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.waiting import until

BYTES = {"int8": 1, "none": 2}  # of a model with one weight
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def engines() -> dict[str, FakeEngineClient]:
    return {}


@pytest.fixture
async def http(
    tokenizer: Tokenizer, engines: dict[str, FakeEngineClient]
) -> AsyncIterator[httpx2.AsyncClient]:
    def make(config: EngineConfig) -> FakeEngineClient:
        name = config.model.quantization
        engines[name] = FakeEngineClient(
            tokenizer,
            reply=lambda request: f"computed in {name}",
            quantization=name,
            weight_bytes=BYTES[name],
        )
        return engines[name]

    config = EngineConfig(model=ModelConfig(quantization="int8", variants=("none",)))
    client = VariantsClient(variant_engines(config, Variant("int8")), make, config.watch)
    await client.start()
    await until(lambda: len(engines) == 2)
    app = build_app(client, ServerConfig(), model_names=("fake", "org/alias"))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http
    await client.close()


async def test_variants_are_listed_beside_the_names(http: httpx2.AsyncClient) -> None:
    for path, key in (("/v1/models", "data"), ("/api/v1/llm/models", "models")):
        listed = (await http.get(path)).json()[key]
        assert [one["id"] for one in listed] == ["fake", "org/alias", "fake@int8", "fake@none"]
    card = (await http.get("/v1/models/org/alias@none")).json()
    assert (card["id"], card["root"], card["status"]["value"]) == (
        "org/alias@none", "fake", "loaded",
    )  # fmt: skip
    info = (await http.get("/api/v1/llm/models/fake@none")).json()["info"]
    assert info["quantization"] == "none"
    assert (await http.get("/v1/models/fake@int4")).status_code == 404


@pytest.mark.parametrize(
    ("fields", "variant"),
    [
        ({}, "int8"),
        ({"model": "fake"}, "int8"),
        ({"model": "fake@none"}, "none"),
        ({"model": "org/alias@none"}, "none"),
        ({"quantization": "fp16"}, "none"),
        ({"quality_preference": "quality"}, "none"),
        ({"quality_preference": 0}, "int8"),
        ({"model": "fake@int8", "quantization": "none"}, "int8"),
    ],
)
async def test_an_answer_tells_the_variant_that_computed_it(
    http: httpx2.AsyncClient, fields: dict[str, str], variant: str
) -> None:
    base = fields.get("model", "fake").partition("@")[0]
    for path in ("/v1/chat/completions", "/api/v1/llm/chat/completions"):
        answer = (await http.post(path, json={**CHAT, **fields})).json()
        assert answer["model"] == f"{base}@{variant}"
        assert answer["choices"][0]["message"]["content"] == f"computed in {variant}"
        if "model_info" in answer:
            assert answer["model_info"]["quantization"] == variant
    stream = await http.post("/v1/chat/completions", json={**CHAT, **fields, "stream": True})
    assert f'"model":"{base}@{variant}"' in stream.text
    embedding = await http.post("/v1/embeddings", json={"input": "Hi", "model": f"fake@{variant}"})
    assert embedding.json()["model"] == f"fake@{variant}"


async def test_only_wishes_that_were_not_met_are_warned_of(http: httpx2.AsyncClient) -> None:
    path = "/v1/completions"
    answer = (await http.post(path, json={"prompt": "Hi", "quantization": "none"})).json()
    assert "warnings" not in answer
    answer = (await http.post(path, json={"prompt": "Hi", "quantization": "int4"})).json()
    [warning] = answer["warnings"]
    assert "'int4' is not loaded: the answer was computed in int8" in warning


async def test_what_the_watch_has_found_is_part_of_health(
    http: httpx2.AsyncClient, engines: dict[str, FakeEngineClient]
) -> None:
    async def health() -> dict[str, Any]:
        report = (await http.get("/api/v1/llm/health")).json()
        return {**report, "quality": report["component_health"].get("quality")}

    assert (await health())["quality"] is None, "nothing is watched"
    good = WatchStats(num_scored=50, quality=0.999)
    bad = WatchStats(num_scored=50, quality=0.9, num_alerts=1, is_alarmed=True)
    engines["int8"].watch = good
    assert (await health())["quality"] == "healthy"
    engines["int8"].watch = bad
    left = await health()
    assert (left["quality"], left["overall_health"]) == ("degraded", "degraded")
    assert left["warnings"] == [
        "The watch over quality has an alert for int8 (quality 0.9000). New requests go to none."
    ]
    assert left["recommendations"] == []
    engines["none"].watch = bad
    served = await health()
    assert len(served["warnings"]) == 2
    assert "a finer precision in variants" in served["recommendations"][0]


async def test_a_variant_that_is_lost_is_a_warning_and_not_the_end(
    http: httpx2.AsyncClient, engines: dict[str, FakeEngineClient]
) -> None:
    engines["none"].die(for_good=True)
    assert (await http.get("/ready")).status_code == 200
    health = await http.get("/api/v1/llm/health")
    assert health.status_code == 200
    assert any("variant none is dead" in warning for warning in health.json()["warnings"])
    status = (await http.get("/v1/models/fake@none")).json()["status"]["value"]
    assert status == "failed"
    refused = await http.post("/v1/chat/completions", json={**CHAT, "model": "fake@none"})
    assert refused.status_code == 503
    wished = (
        await http.post("/v1/completions", json={"prompt": "Hi", "quantization": "none"})
    ).json()
    assert wished["model"] == "fake@int8"
    workers = (await http.get("/api/v1/llm/cluster/status")).json()
    assert workers["cluster"]["status"] == "degraded"
    assert [one["status"] for one in workers["workers"]] == ["active", "failed"]


async def test_loading_concerns_all_variants(
    http: httpx2.AsyncClient, engines: dict[str, FakeEngineClient]
) -> None:
    assert (await http.post("/api/v1/llm/models/fake@none/unload")).status_code in (200, 202)
    await until(lambda: {one.state.value for one in engines.values()} == {"unloaded"})
    await http.post("/api/v1/llm/models/fake/load")
    await until(lambda: {one.state.value for one in engines.values()} == {"ready"})
