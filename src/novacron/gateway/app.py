"""build_app: the gateway, put together around one engine. Called by the CLI and by tests."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from novacron.accounts.accounts import Accounts
from novacron.accounts.allowed_names import AllowedNames
from novacron.config.server import ServerConfig
from novacron.engine.client import EngineClient
from novacron.gateway.anthropic.routes import anthropic_routes
from novacron.gateway.auditing.administration import audit_administration
from novacron.gateway.auditing.inference import recorded
from novacron.gateway.auditing.opened import OpenedAudit
from novacron.gateway.auditing.refused import RefusedAccess
from novacron.gateway.auth import Authentication
from novacron.gateway.cache_ticket import CacheHeaders
from novacron.gateway.calls import Calls, engine_outputs
from novacron.gateway.console.routes import console_routes
from novacron.gateway.error_handlers import install_error_handlers
from novacron.gateway.handover.handover import Handover
from novacron.gateway.handover.together import Coordination, Together
from novacron.gateway.host_check import HostCheck
from novacron.gateway.identity.configured_keys import ConfiguredKeys
from novacron.gateway.identity.principal import Authenticator
from novacron.gateway.identity.route_permissions import guard
from novacron.gateway.kept_prompts import KeptCalls
from novacron.gateway.metering import Metering, RateLimitHeaders
from novacron.gateway.middleware import REQUEST_ID_HEADER, AccessLog, BodyLimit, RequestId
from novacron.gateway.native.admin_policies import PolicyRules
from novacron.gateway.native.admin_routes import admin_routes
from novacron.gateway.native.audit_routes import audit_routes
from novacron.gateway.native.cache_report import CacheHistory
from novacron.gateway.native.cache_routes import cache_routes
from novacron.gateway.native.cluster_routes import cluster_routes
from novacron.gateway.native.dialect_streams import DialectStreams
from novacron.gateway.native.generations import Generations
from novacron.gateway.native.history import SAMPLE_INTERVAL_S, History
from novacron.gateway.native.model_routes import model_routes
from novacron.gateway.native.prompt_routes import prompt_routes
from novacron.gateway.native.response_cache_routes import response_cache_routes
from novacron.gateway.native.routes import native_routes
from novacron.gateway.native.status_routes import status_routes
from novacron.gateway.native.streams import LocalStreams
from novacron.gateway.native.websocket import websocket_routes
from novacron.gateway.ollama.routes import ollama_routes
from novacron.gateway.openai.responses_api.routes import responses_routes
from novacron.gateway.openai.routes import openai_routes
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.origin_check import OriginCheck
from novacron.gateway.privacy import NO_POLICIES, Privacy
from novacron.gateway.response_caching import CachedCalls, OpenedCache
from novacron.gateway.scoring.routes import scoring_routes
from novacron.gateway.security_headers import security_headers
from novacron.gateway.served_model import ServedModel
from novacron.gateway.service import Service
from novacron.gateway.slim_fastapi import SlimFastAPI
from novacron.gateway.system_routes import system_routes
from novacron.observability.metrics import Metrics

if TYPE_CHECKING:  # imported only where there are guardians
    from novacron.gateway.guarding import Guarding

_LAST_POSTINGS_S = 5.0  # for ends of calls to get into the ledger
_LAST_RECORDS_S = 5.0  # and into the audit log
GuardingMaker = Callable[[EngineClient, Metrics, ServedModel], "Guarding"]


def build_app(
    client: EngineClient,
    config: ServerConfig,
    *,
    model_names: tuple[str, ...],
    worker_pids: Callable[[], tuple[int, ...]] = lambda: (os.getpid(),),
    authenticator: Authenticator | None = None,
    accounts: Accounts | None = None,
    make_guarding: GuardingMaker | None = None,
    response_cache: OpenedCache | None = None,
    audit: OpenedAudit | None = None,
    privacy: Privacy = NO_POLICIES,
    coordination: Coordination | None = None,
) -> FastAPI:
    """The ASGI application. It neither starts nor closes `client`.

    `authenticator` knows who may call; without one the keys of the settings do, and if there are
    none either, everyone may do everything.

    `model_names` are those that clients may use; the first is the main one. `worker_pids` tells the
    processes that compute at the moment; by default they are this one. With `accounts`, calls are
    held to quotas, and counted. `make_guarding` makes the guardians and specialists, if there are
    any. `response_cache` is closed with the application; its hits are not counted, since nothing is
    computed. `audit` is closed with it, too. `privacy` says what tenants have agreed to.
    `coordination`: there may be other coordinators, who share its duties and streams.
    """
    if authenticator is None and config.api_key:
        authenticator = ConfiguredKeys(config.api_key, config.key_shares)
    metrics = Metrics(
        quality_score=config.quality_score,
        response_cache=response_cache.answers.counts if response_cache else None,
        audit=audit.log.counts if audit else None,
    )
    model = ServedModel(client, model_names, created=int(time.time()))
    metering = None if accounts is None else Metering(client, model, accounts.ledger)
    guarding = None if make_guarding is None else make_guarding(client, metrics, model)
    generate = engine_outputs(client) if metering is None else metering.generate
    caching = (
        None
        if response_cache is None
        else CachedCalls(
            client,
            model,
            response_cache,
            generate,
            privacy.policies,
            None if accounts is None else AllowedNames(accounts.administration.quotas),
        )
    )
    if caching is not None:
        generate = caching.generate
    audits_inference = audit is not None and audit.records_inference
    if audit is not None and audits_inference:
        generate = recorded(generate, audit.log)
    calls = Calls(client, metrics, generate)
    if guarding is not None:
        calls = guarding.calls(metrics, generate)
    if privacy.prompts is not None:
        calls = KeptCalls(calls, client, privacy.prompts, privacy.policies)
    service = Service(
        client=client,
        config=config,
        model=model,
        metrics=metrics,
        calls=calls,
        worker_pids=worker_pids,
        guarding=guarding,
        response_cache=caching,
        audits_inference=audits_inference,
    )
    generations = Generations(service)
    handover = None
    if coordination is not None and coordination.handover is not None:
        handover = Handover(coordination.handover, coordination.seat, service, generations)
    streams = LocalStreams(generations) if handover is None else handover
    dialects = DialectStreams(service, generations, streams)
    history = History(service)
    cache_history = CacheHistory(lambda: client.stats)
    our_version = version("novacron")
    app = SlimFastAPI(
        title="NovaCron LLM",
        version=our_version,
        middleware=_middleware(
            config,
            authenticator,
            has_limits=accounts is not None,
            has_response_cache=caching is not None,
            audit=audit,
        ),
        lifespan=_lifespan(
            accounts,
            guarding,
            response_cache,
            audit,
            privacy,
            Together(coordination, handover),
            history.sample,
            cache_history.sample,
        ),
    )
    schemas = AnswerSchemas()
    for router in (
        openai_routes(service, dialects, schemas),
        responses_routes(service, dialects, schemas),
        anthropic_routes(service, dialects, schemas),
        ollama_routes(service, dialects, schemas, our_version),
        scoring_routes(service, schemas),
        native_routes(service, generations, streams, schemas),
        model_routes(service, schemas),
        status_routes(service, history, schemas, coordination),
        cluster_routes(service, schemas),
        cache_routes(service, cache_history, schemas),
        response_cache_routes(service, schemas),
        websocket_routes(service, generations, streams),
        system_routes(service, schemas, our_version),
        console_routes(),
    ):
        app.router.routes += router.routes  # themselves, so that the table below gets at them
    if accounts is not None:
        forget = _nothing_to_forget if authenticator is None else authenticator.forget
        rules = PolicyRules(privacy.in_settings, can_keep_prompts=privacy.prompts is not None)
        app.router.routes += admin_routes(accounts, schemas, forget, rules).routes
    if privacy.prompts is not None:
        app.router.routes += prompt_routes(privacy.prompts, schemas).routes
    if audit is not None:
        app.router.routes += audit_routes(audit.folder, schemas).routes
        audit_administration(app.routes, audit.log)
    if authenticator is not None:
        guard(app.routes)
    schemas.install(app)
    install_error_handlers(app, client)
    return app


def _nothing_to_forget(key_id: str) -> None:
    """Where everyone may do everything."""


def _lifespan(
    accounts: Accounts | None,
    guarding: Guarding | None,
    response_cache: OpenedCache | None,
    audit: OpenedAudit | None,
    privacy: Privacy,
    together: Together,
    *samplers: Callable[[], None],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Look at the metrics regularly while the application runs, and keep the ledger."""

    async def sample_for_ever() -> None:
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            for sample in samplers:
                sample()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if audit is not None:
            audit.log.start()
        if accounts is not None:
            accounts.ledger.start()
        together.start()
        task = asyncio.create_task(sample_for_ever())
        async with privacy.running(response_cache.answers if response_cache else None):
            yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if guarding is not None:
            await guarding.close()
        await together.close()
        if accounts is not None:
            await accounts.ledger.close(_LAST_POSTINGS_S)
        if response_cache is not None:
            await response_cache.answers.close()
        if audit is not None:
            await audit.log.close(_LAST_RECORDS_S)

    return lifespan


def _middleware(
    config: ServerConfig,
    authenticator: Authenticator | None,
    *,
    has_limits: bool,
    has_response_cache: bool,
    audit: OpenedAudit | None,
) -> list[Middleware]:
    """Outermost first."""
    stack = [Middleware(RequestId, headers=security_headers(https=bool(config.tls_cert)))]
    if audit is not None:
        stack.append(Middleware(RefusedAccess, log=audit.log))
    if has_response_cache:
        stack.append(Middleware(CacheHeaders))
    if config.access_log:
        stack.append(Middleware(AccessLog))
    if config.allowed_hosts or (config.is_loopback and authenticator is None):
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
    if authenticator is not None:
        stack.append(Middleware(Authentication, authenticator=authenticator))
    else:
        stack.append(Middleware(OriginCheck, allowed=config.cors_allow_origins))
    if has_limits:
        stack.append(Middleware(RateLimitHeaders))
    stack.append(Middleware(BodyLimit, max_bytes=config.max_body_bytes))
    stack.append(Middleware(AsyncExitStackMiddleware))  # FastAPI's handlers look for its stack
    return stack
