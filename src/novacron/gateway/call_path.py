"""What a call goes through on its way to the engine and back, put together: each part only where it
is wanted, so none stands on the path of those who do without."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from novacron.accounts.accounts import Accounts
from novacron.accounts.allowed_names import AllowedNames
from novacron.config.server import ServerConfig
from novacron.engine.client import EngineClient
from novacron.gateway.auditing.inference import recorded
from novacron.gateway.auditing.opened import OpenedAudit
from novacron.gateway.calls import Calls, Generate, engine_outputs
from novacron.gateway.kept_prompts import KeptCalls
from novacron.gateway.metering import Metering
from novacron.gateway.privacy import Privacy
from novacron.gateway.response_caching import CachedCalls, OpenedCache
from novacron.gateway.served_model import ServedModel
from novacron.gateway.service import Service
from novacron.observability.metrics import Metrics

if TYPE_CHECKING:  # imported only where there are guardians
    from novacron.gateway.guarding import Guarding

GuardingMaker = Callable[[EngineClient, Metrics, ServedModel], "Guarding"]


def make_service(
    client: EngineClient,
    config: ServerConfig,
    *,
    model_names: tuple[str, ...],
    worker_pids: Callable[[], tuple[int, ...]],
    accounts: Accounts | None,
    make_guarding: GuardingMaker | None,
    response_cache: OpenedCache | None,
    audit: OpenedAudit | None,
    privacy: Privacy,
) -> Service:
    """From the outside in: kept prompts, guardians, audit, response cache, ledger, engine. See
    build_app."""
    metrics = Metrics(
        quality_score=config.quality_score,
        response_cache=response_cache.answers.counts if response_cache else None,
        audit=audit.log.counts if audit else None,
    )
    model = ServedModel(client, model_names, created=int(time.time()))
    generate: Generate = engine_outputs(client)
    if accounts is not None:
        generate = Metering(client, model, accounts.ledger).generate
    caching = None
    if response_cache is not None:
        caching = _caching(client, model, response_cache, generate, privacy, accounts)
        generate = caching.generate
    audits_inference = audit is not None and audit.records_inference
    if audit is not None and audits_inference:
        generate = recorded(generate, audit.log)
    guarding = None if make_guarding is None else make_guarding(client, metrics, model)
    calls = Calls(client, metrics, generate)
    if guarding is not None:
        calls = guarding.calls(metrics, generate)
    if privacy.prompts is not None:
        calls = KeptCalls(calls, client, privacy.prompts, privacy.policies)
    return Service(
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


def _caching(
    client: EngineClient,
    model: ServedModel,
    opened: OpenedCache,
    generate: Generate,
    privacy: Privacy,
    accounts: Accounts | None,
) -> CachedCalls:
    allowed = None if accounts is None else AllowedNames(accounts.administration.quotas)
    return CachedCalls(client, model, opened, generate, privacy.policies, allowed)
