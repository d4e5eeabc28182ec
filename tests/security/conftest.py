"""A gateway as `novacron serve` runs it: our own HTTP protocol with its limits, several tenants
with keys of their own, and an engine that recites."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import pytest
import uvicorn
from fastapi import FastAPI

from novacron.cli.serving import _Uvicorn, _uvicorn_config
from novacron.config.server import ServerConfig
from novacron.engine.client import EngineClient
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.gateway.response_caching import OpenedCache
from novacron.testing.fake_engine_client import FakeEngineClient, fake_tokenizer

ADMIN, MINE, OTHER = "first-key", "second-key", "third-key"


@dataclass
class Target:
    url: str
    port: int
    engine: FakeEngineClient
    app: FastAPI = field(repr=False)


Serve = Callable[..., AbstractAsyncContextManager[Target]]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return fake_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def serve(tokenizer: Tokenizer) -> Serve:
    @contextlib.asynccontextmanager
    async def serve(
        client: EngineClient | None = None,
        response_cache: OpenedCache | None = None,
        **settings: object,
    ) -> AsyncIterator[Target]:
        """Over `client`, or else the target's engine."""
        config = ServerConfig(**{"api_key": (ADMIN, MINE, OTHER), **settings})  # type: ignore[arg-type]
        engine = FakeEngineClient(tokenizer)
        app = build_app(
            client or engine, config, model_names=("fake",), response_cache=response_cache
        )
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(512)
            port = listener.getsockname()[1]
            server: uvicorn.Server = _Uvicorn(_uvicorn_config(app, config, None))
            running = asyncio.create_task(server.serve(sockets=[listener]))
            assert isinstance(server, _Uvicorn)
            await server.listening.wait()
            try:
                yield Target(f"http://127.0.0.1:{port}", port, engine, app)
            finally:
                server.should_exit = True
                server.force_exit = True
                await running

    return serve


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}
