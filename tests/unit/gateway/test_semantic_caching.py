from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
import pytest

from novacron.config.response_cache import parse_thresholds
from novacron.config.server import ServerConfig
from novacron.config.tenants import parse_policies
from novacron.engine.tokenization import Tokenizer
from novacron.errors import ConfigError, Overloaded
from novacron.gateway.app import build_app
from novacron.gateway.privacy import Privacy
from novacron.gateway.response_caching import OpenedCache
from novacron.gateway.semantic_caching import SemanticSettings
from novacron.records.output import RequestOutput
from novacron.records.request import Request
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.hash_embedding import hash_embedding
from novacron.response_cache.memory_store import MemoryStore
from novacron.response_cache.vector_index import VectorIndex
from novacron.testing.fake_engine_client import FakeEngineClient

URL = "/v1/chat/completions"
WISH = {"x-novacron-cache": "semantic"}
ASKED = "What is the capital of Peru?"
REWORDED = "Please tell me the capital of Peru."
Make = Callable[..., httpx2.AsyncClient]


@pytest.fixture
def client(tokenizer: Tokenizer) -> FakeEngineClient:
    return FakeEngineClient(tokenizer)


@pytest.fixture
def make(client: FakeEngineClient, make_http) -> Make:
    def make(
        config: ServerConfig | None = None,
        policies: tuple[dict[str, object], ...] = (),
        **settings: Any,
    ) -> httpx2.AsyncClient:
        semantic = SemanticSettings(
            **{"index": VectorIndex(), "threshold": 0.3, "embed": hash_embedding, **settings}
        )
        opened = OpenedCache(
            answers=ResponseCache(MemoryStore(1 << 22, time.monotonic), 60.0),
            store_name="memory",
            semantic=semantic,
        )
        app = build_app(
            client,
            config or ServerConfig(),
            model_names=("fake",),
            response_cache=opened,
            privacy=Privacy(policies=parse_policies(policies)),
        )
        return make_http(app)

    return make


def body(question: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "temperature": 0, **fields}


async def outcome(
    http: httpx2.AsyncClient, sent: dict[str, Any], headers: dict[str, str] = WISH, path: str = URL
) -> tuple[str, str | None]:
    answer = await http.post(path, json=sent, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-novacron-cache"], answer.headers.get("x-novacron-cache-kind")


async def test_other_words_hit_and_another_question_does_not(make: Make) -> None:
    http = make()
    assert await outcome(http, body(ASKED)) == ("miss", None)
    assert await outcome(http, body(REWORDED)) == ("hit", "semantic")
    assert await outcome(http, body(ASKED)) == ("hit", "exact")
    for other in ("What is the capital of Chile?", "What is the population of Peru?"):
        assert await outcome(http, body(other)) == ("miss", None)
    streamed = await http.post(URL, json=body(REWORDED, stream=True), headers=WISH)
    assert streamed.headers["x-novacron-cache-kind"] == "semantic"
    assert streamed.text.endswith("data: [DONE]\n\n")


async def test_the_engine_makes_vectors_where_nothing_else_does(
    make: Make, client: FakeEngineClient
) -> None:
    """The fake's vectors have nothing to do with meaning: the threshold lets all of them pass."""
    http = make(embed=None, threshold=-1.0)
    await outcome(http, body(ASKED))
    assert await outcome(http, body(REWORDED)) == ("hit", "semantic")
    pooled = [request for request in client.submitted if request.pooling]
    texts = [client.tokenizer.decode(request.prompt_token_ids) for request in pooled]
    assert texts == [ASKED, REWORDED]


async def test_only_those_who_ask_for_it_take_part(make: Make) -> None:
    http = make()
    await outcome(http, body(ASKED), headers={})
    assert await outcome(http, body(REWORDED)) == ("miss", None)  # nobody offered an answer
    assert await outcome(http, body("The capital of Peru?"), headers={}) == ("miss", None)


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 7},
        {"response_format": {"type": "json_object"}},
        {"temperature": 1},
        {"cache_salt": "x"},
        {"stop": ["x"]},
        {"chat_template_kwargs": {"x": 1}},
    ],
)
async def test_all_around_the_question_must_be_equal(make: Make, other: dict[str, Any]) -> None:
    http = make()
    await outcome(http, body(ASKED))
    assert (await outcome(http, body(REWORDED, **other)))[0] == "miss"


async def test_earlier_turns_and_system_prompts_must_be_equal(make: Make) -> None:
    http = make()
    system = {"role": "system", "content": "Answer in Spanish."}
    await outcome(http, body(ASKED))
    with_system = {**body(""), "messages": [system, {"role": "user", "content": REWORDED}]}
    assert await outcome(http, with_system) == ("miss", None)
    again = {**body(""), "messages": [system, {"role": "user", "content": ASKED}]}
    assert await outcome(http, again) == ("hit", "semantic")


async def test_ids_and_priorities_make_no_difference(make: Make) -> None:
    http = make()
    await outcome(http, body(ASKED, user="a", priority=1))
    assert await outcome(http, body(REWORDED, user="b", seed=3)) == ("hit", "semantic")


async def test_tenants_are_apart_and_flushing_forgets(make: Make) -> None:
    everyone = {"name": "*", "response_cache": "semantic"}
    http = make(ServerConfig(api_key=("one", "two")), (everyone,))
    one, two = ({"authorization": f"Bearer {key}", **WISH} for key in ("one", "two"))
    await outcome(http, body(ASKED), headers=one)
    assert await outcome(http, body(REWORDED), headers=two) == ("miss", None)
    assert await outcome(http, body(REWORDED), headers=one) == ("hit", "semantic")
    assert (await http.delete("/api/v1/llm/response-cache", headers=one)).status_code == 200
    assert await outcome(http, body(REWORDED), headers=one) == ("miss", None)


@pytest.mark.parametrize(
    ("policies", "exact", "reworded"),
    [
        ((), "hit", "miss"),
        (({"name": "*", "response_cache": "semantic"},), "hit", "hit"),
        (({"name": "*", "response_cache": "off"},), "bypass", "bypass"),
        (({"name": "*", "regions": ["eu"]},), "bypass", "bypass"),
    ],
)
async def test_tenants_take_part_as_far_as_their_policy_says(
    make: Make, policies: tuple[dict[str, object], ...], exact: str, reworded: str
) -> None:
    http = make(ServerConfig(api_key=("one", "two")), policies)
    headers = {"authorization": "Bearer one", **WISH}
    await outcome(http, body(ASKED), headers=headers)
    assert (await outcome(http, body(ASKED), headers=headers))[0] == exact
    assert (await outcome(http, body(REWORDED), headers=headers))[0] == reworded


async def test_a_route_can_have_a_threshold_of_its_own(make: Make) -> None:
    http = make(by_path={"/v1/messages": 0.99})
    for path, expected in ((URL, "hit"), ("/v1/messages", "miss")):
        for question in (ASKED, REWORDED):
            sent = body(question, model="fake", max_tokens=50)
            told = await outcome(http, sent, path=path)
        assert told[0] == expected


async def test_an_engine_that_cannot_make_a_vector_costs_a_hit_only(
    make: Make, client: FakeEngineClient
) -> None:
    generate = client.generate

    def refusing_vectors(
        requests: tuple[Request, ...],
    ) -> AsyncGenerator[RequestOutput, None]:
        if requests[0].pooling:
            raise Overloaded("The queue is full.")
        return generate(requests)

    client.generate = refusing_vectors
    http = make(embed=None, threshold=-1.0)
    for question in (ASKED, REWORDED):
        assert await outcome(http, body(question)) == ("miss", None)
    assert await outcome(http, body(ASKED)) == ("hit", "exact")


def test_thresholds_of_routes() -> None:
    assert parse_thresholds(("/a=0.5", "/b/c=-1")) == {"/a": 0.5, "/b/c": -1.0}
    for wrong in ("a=0.5", "/a", "/a=x", "/a=2", "/a=nan"):
        with pytest.raises(ConfigError, match="response_cache_thresholds"):
            parse_thresholds((wrong,))
