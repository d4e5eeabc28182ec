"""schemathesis reads our OpenAPI document and sends what it describes."""

from __future__ import annotations

import gc
import time
from importlib import import_module
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from novacron.accounts.accounts import Accounts
from novacron.accounts.book import BookInThread
from novacron.accounts.data_policy import StoredPolicies
from novacron.accounts.database.store import Store
from novacron.accounts.key_directory import AccountKeys
from novacron.accounts.ledger import Ledger
from novacron.audit.lane_writer import LaneWriter
from novacron.audit.log import AuditLog
from novacron.audit.record import AuditRecord
from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.gateway.auditing.opened import OpenedAudit
from novacron.gateway.response_caching import OpenedCache
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.memory_store import MemoryStore
from novacron.testing.fake_engine_client import FakeEngineClient

# pytest rewrites what schemathesis imports only when it is used. CPython 3.11 loses count of how
# deep it is if a collection runs Python code while it parses; Hypothesis has collections do so.
gc.disable()
import_module("schemathesis.specs.openapi._hypothesis")
gc.enable()


def not_a_bug(
    context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> bool | None:
    """501 is an honest answer."""
    return response.status_code == 501 or not_a_server_error(context, response, case)


CHECKS = [
    not_a_bug,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize("num_examples", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_answers_are_what_the_document_says(
    tokenizer: Tokenizer, subtests: pytest.Subtests, num_examples: int
) -> None:
    engine = FakeEngineClient(tokenizer, max_model_len=64)
    config = ServerConfig(allowed_hosts=("testserver",))
    app = build_app(engine, config, model_names=("fake",))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    chat = {"messages": [{"role": "user", "content": "hi"}], "request_id": "known"}
    answer = schema["/api/v1/llm/chat/completions"]["POST"].Case(body=chat).call()
    assert answer.status_code == 200
    for result in schema.get_all_operations():
        operation = result.ok()
        with subtests.test(operation.label):
            _check(operation, num_examples)


class UnwrittenLog(AuditLog):
    """Takes all records at once: no lifespan runs here, so there is no thread to write them."""

    async def write(self, record: AuditRecord) -> None: ...

    def note(self, record: AuditRecord) -> None: ...


@pytest.mark.parametrize("num_examples", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_so_are_those_about_accounts_and_the_audit_log(
    tokenizer: Tokenizer, tmp_path: Path, subtests: pytest.Subtests, num_examples: int
) -> None:
    writer = LaneWriter(tmp_path / "audit")
    writer.append([AuditRecord(time=float(n), kind="inference", tenant="acme") for n in range(9)])
    store = Store(f"sqlite:///{tmp_path}/accounts.db")
    store.tenants.create("acme")
    app = build_app(
        FakeEngineClient(tokenizer, max_model_len=64),
        ServerConfig(allowed_hosts=("testserver",)),
        model_names=("fake",),
        accounts=Accounts(
            ledger=Ledger(BookInThread(store.book())),
            administration=store,
            directory=AccountKeys(store),
            policies=StoredPolicies(store.policies),
            hash_key=lambda key: f"hash of {len(key)} letters",
        ),
        audit=OpenedAudit(UnwrittenLog(writer), tmp_path / "audit"),
        response_cache=OpenedCache(
            answers=ResponseCache(MemoryStore(1 << 20, time.monotonic), 60.0), store_name="memory"
        ),
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if "/admin/" in operation.path or "/response-cache" in operation.path:
            tried += 1
            with subtests.test(operation.label):
                _check(operation, num_examples)
    assert tried > 25
    store.close()
    writer.close()


def _known(case: schemathesis.Case) -> dict[str, str]:
    """Ids that exist, so that answers are seen and not only 404s; but nothing is unloaded."""
    known = {"model_id": "fake", "request_id": "known", "worker_id": "replica-1"}
    if case.method == "DELETE" or "load" in case.path:
        return {}
    if "/tenants/" in case.path or "/prompts/" in case.path:
        known |= {"id": "acme", "tenant": "acme"}
    return {name: known[name] for name in case.path_parameters if name in known}


def _check(operation: schemathesis.schemas.APIOperation, num_examples: int) -> None:
    @settings(
        max_examples=num_examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def send(case: schemathesis.Case) -> None:
        case.path_parameters.update(_known(case))
        case.call_and_validate(checks=CHECKS)

    send()
