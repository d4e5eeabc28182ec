"""build_app: the gateway, put together around one engine. Called by the CLI and by tests."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from novacron.config.server import ServerConfig
from novacron.engine.client import EngineClient
from novacron.gateway.anthropic.routes import anthropic_routes
from novacron.gateway.auth import ApiKeyAuth
from novacron.gateway.calls import Calls
from novacron.gateway.error_handlers import install_error_handlers
from novacron.gateway.host_check import HostCheck
from novacron.gateway.middleware import REQUEST_ID_HEADER, AccessLog, BodyLimit, RequestId
from novacron.gateway.native.cache_report import CacheHistory
from novacron.gateway.native.cache_routes import cache_routes
from novacron.gateway.native.cluster_routes import cluster_routes
from novacron.gateway.native.generations import Generations
from novacron.gateway.native.history import SAMPLE_INTERVAL_S, History
from novacron.gateway.native.model_routes import model_routes
from novacron.gateway.native.routes import native_routes
from novacron.gateway.native.status_routes import status_routes
from novacron.gateway.native.websocket import websocket_routes
from novacron.gateway.ollama.routes import ollama_routes
from novacron.gateway.openai.responses_api.routes import responses_routes
from novacron.gateway.openai.routes import openai_routes
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.origin_check import OriginCheck
from novacron.gateway.scoring.routes import scoring_routes
from novacron.gateway.served_model import ServedModel
from novacron.gateway.service import Service
from novacron.gateway.system_routes import system_routes
from novacron.observability.metrics import Metrics


def build_app(
    client: EngineClient,
    config: ServerConfig,
    *,
    model_names: tuple[str, ...],
    worker_pids: Callable[[], tuple[int, ...]] = lambda: (os.getpid(),),
) -> FastAPI:
    """The ASGI application. It neither starts nor closes `client`.

    `model_names` are those that clients may use; the first is the main one. `worker_pids` tells the
    processes that compute at the moment; by default they are this one.
    """
    metrics = Metrics(quality_score=config.quality_score)
    service = Service(
        client=client,
        config=config,
        model=ServedModel(client, model_names, created=int(time.time())),
        metrics=metrics,
        calls=Calls(client, metrics),
        worker_pids=worker_pids,
    )
    history = History(service)
    cache_history = CacheHistory(lambda: client.stats)
    our_version = version("novacron")
    app = FastAPI(
        title="NovaCron LLM",
        version=our_version,
        middleware=_middleware(config),
        lifespan=_sampling(history.sample, cache_history.sample),
    )
    schemas = AnswerSchemas()
    generations = Generations(service)
    for router in (
        openai_routes(service, schemas),
        responses_routes(service, schemas),
        anthropic_routes(service, schemas),
        ollama_routes(service, schemas, our_version),
        scoring_routes(service, schemas),
        native_routes(service, generations, schemas),
        model_routes(service, schemas),
        status_routes(service, history, schemas),
        cluster_routes(service, schemas),
        cache_routes(service, cache_history, schemas),
        websocket_routes(service, generations),
        system_routes(service, schemas, our_version),
    ):
        app.include_router(router)
    schemas.install(app)
    install_error_handlers(app, client)
    return app


def _sampling(
    *samplers: Callable[[], None],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Look at the metrics regularly while the application runs."""

    async def sample_for_ever() -> None:
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            for sample in samplers:
                sample()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(sample_for_ever())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return lifespan


def _middleware(config: ServerConfig) -> list[Middleware]:
    """Outermost first."""
    stack = [Middleware(RequestId)]
    if config.access_log:
        stack.append(Middleware(AccessLog))
    if config.allowed_hosts or (config.is_loopback and not config.api_key):
        stack.append(Middleware(HostCheck, allowed=config.allowed_hosts))
    if config.cors_allow_origins:
        stack.append(
            Middleware(
                CORSMiddleware,
                allow_origins=config.cors_allow_origins,
                allow_methods=("*",),
                allow_headers=("*",),
                expose_headers=(REQUEST_ID_HEADER,),
            )
        )
    if config.api_key:
        stack.append(Middleware(ApiKeyAuth, keys=config.api_key))
    else:
        stack.append(Middleware(OriginCheck, allowed=config.cors_allow_origins))
    stack.append(Middleware(BodyLimit, max_bytes=config.max_body_bytes))
    return stack
