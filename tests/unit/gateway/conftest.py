from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from novacron.accounts.accounts import Accounts
from novacron.accounts.book import BookInThread
from novacron.accounts.data_policy import StoredPolicies
from novacron.accounts.database.store import Store
from novacron.accounts.key_directory import AccountKeys
from novacron.accounts.ledger import Ledger
from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.gateway.calls import CallOrigin
from novacron.gateway.identity.key_hash import hash_key
from novacron.testing.fake_engine_client import FakeEngineClient, fake_tokenizer

MakeHttp = Callable[[FastAPI], httpx2.AsyncClient]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return fake_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def client(tokenizer: Tokenizer) -> FakeEngineClient:
    return FakeEngineClient(tokenizer)


@pytest.fixture
def origin() -> CallOrigin:
    return CallOrigin(
        call_id="chatcmpl-1", request_id="1", model="fake", created=7, arrival_time_s=0.0
    )


@pytest.fixture
async def make_http() -> AsyncIterator[MakeHttp]:
    """Makes clients of an app, without a socket between. Answers come whole."""
    clients = []

    def make(app: FastAPI) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        clients.append(httpx2.AsyncClient(transport=transport, base_url="http://localhost"))
        return clients[-1]

    yield make
    for http in clients:
        await http.aclose()


@pytest.fixture
def http(client: FakeEngineClient, make_http: MakeHttp) -> httpx2.AsyncClient:
    config = ServerConfig(quality_score=0.9)
    return make_http(build_app(client, config, model_names=("fake", "org/alias")))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Accounts with the tenant and user of test_metering in them."""
    store = Store(f"sqlite:///{tmp_path}/accounts.db")
    store.tenants.create("default")
    store.users.create("ann", tenant_id="default")
    yield store
    store.close()


@pytest.fixture
def accounts(store: Store) -> Accounts:
    return Accounts(
        ledger=Ledger(BookInThread(store.book())),
        administration=store,
        directory=AccountKeys(store),
        policies=StoredPolicies(store.policies),
        hash_key=hash_key,
    )
