"""schemathesis reads our OpenAPI document and sends what it describes."""

from __future__ import annotations

import gc
from importlib import import_module

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
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


def _known(case: schemathesis.Case) -> dict[str, str]:
    """Ids that exist, so that answers are seen and not only 404s; but nothing is unloaded."""
    known = {"model_id": "fake", "request_id": "known", "worker_id": "replica-1"}
    if case.method == "DELETE" or "load" in case.path:
        return {}
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
