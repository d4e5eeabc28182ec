"""build_app: the gateway, put together around one engine. Called by the CLI and by tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from novacron.accounts.accounts import Accounts
from novacron.config.server import ServerConfig
from novacron.engine.client import EngineClient
from novacron.gateway.anthropic.routes import anthropic_routes
from novacron.gateway.auditing.administration import audit_administration
from novacron.gateway.auditing.opened import OpenedAudit
from novacron.gateway.auditing.refused import RefusedAccess
from novacron.gateway.auth import Authentication
from novacron.gateway.cache_ticket import CacheHeaders
from novacron.gateway.call_path import GuardingMaker, make_service
from novacron.gateway.console.routes import console_routes
from novacron.gateway.error_handlers import install_error_handlers
from novacron.gateway.handover.handover import Handover
from novacron.gateway.handover.together import Coordination, Together
from novacron.gateway.host_check import HostCheck
from novacron.gateway.identity.configured_keys import ConfiguredKeys
from novacron.gateway.identity.principal import Authenticator
from novacron.gateway.identity.route_permissions import guard
from novacron.gateway.lifespan import lifespan_of
from novacron.gateway.middleware import REQUEST_ID_HEADER, AccessLog, BodyLimit, RequestId
from novacron.gateway.native.admin_policies import PolicyRules
from novacron.gateway.native.admin_routes import admin_routes
from novacron.gateway.native.audit_routes import audit_routes
from novacron.gateway.native.cache_report import CacheHistory
from novacron.gateway.native.cache_routes import cache_routes
from novacron.gateway.native.cluster_routes import cluster_routes
from novacron.gateway.native.dialect_streams import DialectStreams
from novacron.gateway.native.generations import Generations
from novacron.gateway.native.history import History
from novacron.gateway.native.model_routes import model_routes
from novacron.gateway.native.own_usage import own_usage_routes
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
from novacron.gateway.rate_limits import RateLimitHeaders
from novacron.gateway.response_caching import OpenedCache
from novacron.gateway.scoring.routes import scoring_routes
from novacron.gateway.security_headers import security_headers
from novacron.gateway.service import Service
from novacron.gateway.slim_fastapi import SlimFastAPI
from novacron.gateway.system_routes import system_routes


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
    service = make_service(
        client,
        config,
        model_names=model_names,
        worker_pids=worker_pids,
        accounts=accounts,
        make_guarding=make_guarding,
        response_cache=response_cache,
        audit=audit,
        privacy=privacy,
    )
    generations = Generations(service)
    handover = None
    if coordination is not None and coordination.handover is not None:
        handover = Handover(coordination.handover, coordination.seat, service, generations)
    streams = LocalStreams(generations) if handover is None else handover
    history, cache_history = History(service), CacheHistory(lambda: client.stats)
    app = SlimFastAPI(
        title="NovaCron LLM",
        version=version("novacron"),
        middleware=_middleware(
            config,
            authenticator,
            has_limits=accounts is not None,
            has_response_cache=response_cache is not None,
            audit=audit,
        ),
        lifespan=lifespan_of(
            accounts=accounts,
            guarding=service.guarding,
            response_cache=response_cache,
            audit=audit,
            privacy=privacy,
            together=Together(coordination, handover),
            samplers=(history.sample, cache_history.sample),
        ),
    )
    schemas = AnswerSchemas()
    for router in (
        *_dialects(service, DialectStreams(service, generations, streams), schemas),
        native_routes(service, generations, streams, schemas),
        model_routes(service, schemas),
        status_routes(service, history, schemas, coordination),
        cluster_routes(service, schemas),
        cache_routes(service, cache_history, schemas),
        response_cache_routes(service, schemas),
        websocket_routes(service, generations, streams),
        system_routes(service, schemas, app.version),
        console_routes(),
        *_administration(accounts, authenticator, audit, privacy, schemas),
    ):
        app.router.routes += router.routes  # themselves, so that the tables below get at them
    if audit is not None:
        audit_administration(app.routes, audit.log)
    if authenticator is not None:
        guard(app.routes)
    schemas.install(app)
    install_error_handlers(app, client)
    return app


def _dialects(
    service: Service, streams: DialectStreams, schemas: AnswerSchemas
) -> Iterator[APIRouter]:
    yield openai_routes(service, streams, schemas)
    yield responses_routes(service, streams, schemas)
    yield anthropic_routes(service, streams, schemas)
    yield ollama_routes(service, streams, schemas, version("novacron"))
    yield scoring_routes(service, schemas)


def _administration(
    accounts: Accounts | None,
    authenticator: Authenticator | None,
    audit: OpenedAudit | None,
    privacy: Privacy,
    schemas: AnswerSchemas,
) -> Iterator[APIRouter]:
    """Of what there is."""
    if accounts is not None:
        forget = _nothing_to_forget if authenticator is None else authenticator.forget
        rules = PolicyRules(privacy.in_settings, can_keep_prompts=privacy.prompts is not None)
        yield admin_routes(accounts, schemas, forget, rules)
        yield own_usage_routes(accounts.administration, schemas)
    if privacy.prompts is not None:
        yield prompt_routes(privacy.prompts, schemas)
    if audit is not None:
        yield audit_routes(audit.folder, schemas)


def _nothing_to_forget(key_id: str) -> None:
    """Where everyone may do everything."""


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
