"""Calls over HTTP on a server with accounts in a real database, and an engine that recites."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from novacron.accounts.accounts import Accounts
from novacron.accounts.database.store import Store
from novacron.accounts.quota import Quota
from novacron.accounts.usage import UsageQuestion, UsageRow
from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.errors import Overloaded
from novacron.gateway.app import build_app
from novacron.gateway.identity.principal import Principal, set_principal
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.waiting import until

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "ignore_eos": True}


class AsAnn:
    """Stands in for authentication."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        set_principal(scope, Principal(user_id="ann", key_id="k1"))
        await self._app(scope, receive, send)


@asynccontextmanager
async def running(
    client: FakeEngineClient, accounts: Accounts
) -> AsyncIterator[httpx2.AsyncClient]:
    app = build_app(client, ServerConfig(), model_names=("fake", "alias"), accounts=accounts)
    transport = httpx2.ASGITransport(app=AsAnn(app), raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        yield http


@pytest.fixture
async def http(client: FakeEngineClient, accounts: Accounts) -> AsyncIterator[httpx2.AsyncClient]:
    async with running(client, accounts) as http:
        yield http


async def ask(http: httpx2.AsyncClient, **more: object) -> httpx2.Response:
    return await http.post("/v1/chat/completions", json={**CHAT, **more})


async def counted(store: Store, num_requests: int) -> UsageRow:
    """The user's usage, once so many calls are settled."""
    question = UsageQuestion(by=("tenant", "user", "key", "model", "variant"))
    await until(lambda: sum(row.requests for row in store.usage(question)) == num_requests)
    [row] = store.usage(question)
    return row


@pytest.mark.parametrize("extra", [{}, {"n": 3}, {"stream": True}])
async def test_the_ledger_has_what_the_client_was_told(
    http: httpx2.AsyncClient, store: Store, extra: dict[str, object]
) -> None:
    told: dict[str, Any] = (await ask(http, **{**extra, "stream": False})).json()["usage"]
    await ask(http, **extra)
    row = await counted(store, 2)
    assert (row.tenant, row.user, row.key, row.model) == ("default", "ann", "k1", "fake")
    assert row.prompt_tokens == 2 * told["prompt_tokens"]
    assert row.output_tokens == 2 * told["completion_tokens"] > 0
    assert row.variant


async def test_a_used_up_quota_is_429_with_when_to_come_back(
    http: httpx2.AsyncClient, store: Store
) -> None:
    store.quotas.set("user", "ann", Quota(requests_per_minute=1))
    first = await ask(http)
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    second = await ask(http, stream=True)
    assert second.status_code == 429
    assert 0 < int(second.headers["retry-after"]) <= 60
    assert second.headers["x-ratelimit-remaining-requests"] == "0"
    error = second.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "user:ann" in error["message"]


async def test_anthropic_s_clients_are_told_in_their_words(
    http: httpx2.AsyncClient, store: Store
) -> None:
    store.quotas.set("user", "ann", Quota(requests_per_minute=1))
    before = datetime.now(UTC).replace(microsecond=0)
    answers = [await http.post("/v1/messages", json={**CHAT, "model": "fake"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    for answer in answers:
        told = answer.headers
        assert told["anthropic-ratelimit-requests-limit"] == "1"
        assert told["anthropic-ratelimit-requests-remaining"] == "0"
        assert "anthropic-ratelimit-tokens-limit" not in told
        reset = datetime.fromisoformat(told["anthropic-ratelimit-requests-reset"])
        assert before < reset <= datetime.now(UTC) + timedelta(seconds=61)
        assert told["x-ratelimit-limit-requests"] == "1"
    assert "anthropic-ratelimit-requests-limit" not in (await ask(http)).headers


async def test_tokens_of_the_day_are_never_overspent_and_unused_ones_come_back(
    http: httpx2.AsyncClient, store: Store
) -> None:
    spent = (await ask(http)).json()["usage"]["total_tokens"]
    await counted(store, 1)
    store.quotas.set("tenant", "default", Quota(tokens_per_day=3 * spent))
    answers = await asyncio.gather(*(ask(http) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 4
    row = await counted(store, 3)
    assert row.prompt_tokens + row.output_tokens == 3 * spent


async def test_an_answer_of_no_named_length_ends_where_the_quota_does(
    http: httpx2.AsyncClient, store: Store
) -> None:
    store.quotas.set("user", "ann", Quota(answer_tokens=3))
    body = {key: value for key, value in CHAT.items() if key != "max_tokens"}
    answer = (await http.post("/v1/chat/completions", json=body)).json()
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"
    refused = await ask(http)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "max_tokens"


async def test_a_model_that_is_not_allowed_is_403(http: httpx2.AsyncClient, store: Store) -> None:
    store.quotas.set("user", "ann", Quota(models=("other",)))
    assert (await ask(http, model="alias")).status_code == 403
    store.quotas.set("user", "ann", Quota(models=("fake",)))
    assert (await ask(http, model="alias")).status_code == 200


async def test_a_call_that_the_engine_refuses_costs_nothing(
    client: FakeEngineClient,
    store: Store,
    accounts: Accounts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.quotas.set("user", "ann", Quota(requests_per_hour=1, concurrent_requests=1))
    async with running(client, accounts) as http:

        async def full(requests: object) -> AsyncIterator[None]:
            raise Overloaded("full")
            yield

        with monkeypatch.context() as patch:
            patch.setattr(client, "generate", full)
            assert (await ask(http)).status_code == 503
        async with asyncio.timeout(10):
            while (await ask(http)).status_code != 200:
                pass
    assert (await counted(store, 1)).requests == 1


async def test_a_reader_who_leaves_pays_for_what_he_got(
    tokenizer: Tokenizer, store: Store, accounts: Accounts
) -> None:
    client = FakeEngineClient(tokenizer, step_s=0.001)
    store.quotas.set("user", "ann", Quota(tokens_per_day=10_000))
    async with running(client, accounts) as http:
        call = asyncio.create_task(ask(http, max_tokens=500))
        await until(lambda: client.submitted)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        row = await counted(store, 1)
    assert row.prompt_tokens > 0
    assert row.output_tokens < 500


async def test_embeddings_and_native_calls_are_counted(
    http: httpx2.AsyncClient, store: Store
) -> None:
    told = (await http.post("/v1/embeddings", json={"input": "hi there"})).json()["usage"]
    row = await counted(store, 1)
    assert (row.prompt_tokens, row.output_tokens) == (told["prompt_tokens"], 0)
    assert (await http.post("/api/v1/llm/chat/completions", json=CHAT)).status_code == 200
    await counted(store, 2)


async def test_no_call_is_more_urgent_than_its_quota_allows(
    http: httpx2.AsyncClient, client: FakeEngineClient, store: Store
) -> None:
    store.quotas.set("user", "ann", Quota(priority="low"))
    await ask(http, priority=-10)
    await ask(http, priority=50)
    assert [request.priority for request in client.submitted] == [10, 50]
