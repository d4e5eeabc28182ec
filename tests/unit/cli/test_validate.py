"""The deployment checks, against servers in all states."""

from __future__ import annotations

from typing import Any

import pytest

from novacron.cli.api_client import ApiClient
from novacron.cli.checks import Check, Verdict
from novacron.cli.validate import Expectations, run_checks

GOOD: dict[str, Any] = {
    "GET /health": {"status": "healthy"},
    "GET /api/v1/llm/cluster/status": {
        "cluster": {"total_workers": 1, "active_workers": 1},
        "workers": [{"worker_id": "w0", "status": "active"}],
    },
    "GET /api/v1/llm/models": {"models": [{"id": "tiny", "status": "loaded"}]},
    "POST /api/v1/llm/chat/completions": {"choices": [{"message": {"content": "Paris."}}]},
    "GET /api/v1/llm/metrics": {
        "active_requests": 0,
        "inference_metrics": {
            "latency": {"avg_per_token_latency": [80.0, 12.0]},
            "cache_performance": {"overall_hit_rate": [0.1, 0.9]},
            "quality_metrics": {"quality_score": [0.95]},
        },
    },
}


@pytest.fixture
def good(api):
    api.routes = dict(GOOD)
    return api


def _checks(api, **expected: Any) -> list[Check]:
    waits: list[float] = []
    options = {"model": None, "min_workers": 1, "load_timeout_s": 20.0, **expected}
    with ApiClient(api.url, None) as client:
        checks = list(run_checks(client, Expectations(**options), wait=waits.append))
    assert sum(waits) <= 20.0
    return checks


def _by_verdict(checks: list[Check], verdict: Verdict) -> list[str]:
    return [check.subject for check in checks if check.verdict is verdict]


def test_a_good_server_passes(novacron, good) -> None:
    result = novacron("validate", good.url, "--api-key", "k")
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.output
    assert "WARN" not in result.output
    assert result.output.count("PASS") == 8
    assert "'Paris.'" in result.output
    assert "is ready for use" in result.output
    assert good.keys == {"Bearer k"}


def test_a_failed_check_fails_the_command(novacron, good) -> None:
    good.routes["GET /health"] = {"status": "degraded"}
    result = novacron("validate", good.url)
    assert result.exit_code == 1
    assert "FAIL  health: status is 'degraded'" in result.output


@pytest.mark.parametrize(
    ("route", "answer", "subject"),
    [
        ("GET /health", {}, "health"),
        ("GET /health", (503, {"error": {"message": "loading"}}), "health"),
        ("GET /api/v1/llm/cluster/status", {"cluster": {}}, "workers"),
        ("GET /api/v1/llm/models", {"models": [{"id": "tiny", "status": "failed"}]}, "model"),
        ("GET /api/v1/llm/models", {"models": [{"id": "tiny", "status": "loading"}]}, "model"),
        ("POST /api/v1/llm/chat/completions", {"choices": []}, "inference"),
        (
            "POST /api/v1/llm/chat/completions",
            {"choices": [{"message": {"content": None}}]},
            "inference",
        ),
        ("GET /api/v1/llm/metrics", {"inference_metrics": {}}, "metrics"),
    ],
)
def test_what_fails(good, route: str, answer: object, subject: str) -> None:
    good.routes[route] = answer
    assert _by_verdict(_checks(good), Verdict.FAIL) == [subject]


def test_too_few_workers(good) -> None:
    assert _by_verdict(_checks(good, min_workers=4), Verdict.FAIL) == ["workers"]


def test_an_idle_worker_is_named(good) -> None:
    good.routes["GET /api/v1/llm/cluster/status"] = {
        "cluster": {"total_workers": 2, "active_workers": 1},
        "workers": [
            {"worker_id": "w0", "status": "active"},
            {"worker_id": "w1", "status": "failed"},
        ],
    }
    [warning] = [check for check in _checks(good) if check.verdict is Verdict.WARN]
    assert warning.finding == "not active: w1"


def test_an_unloaded_model_is_loaded(good) -> None:
    statuses = ["unloaded", "loading", "loaded", "loaded"]
    good.routes["GET /api/v1/llm/models"] = lambda body: {
        "models": [{"id": "tiny", "status": statuses.pop(0)}]
    }
    good.routes["POST /api/v1/llm/models/tiny/load"] = {"status": "loading"}
    checks = _checks(good)
    assert _by_verdict(checks, Verdict.FAIL) == []
    assert _by_verdict(checks, Verdict.WARN) == ["model"]
    assert "/api/v1/llm/models/tiny/load" in [path for path, _ in good.asked]


def test_a_model_that_is_not_served(good) -> None:
    failed = [check for check in _checks(good, model="big") if check.verdict is Verdict.FAIL]
    assert [check.subject for check in failed] == ["model", "inference"]
    assert "'big' is not served here" in failed[0].finding


@pytest.mark.parametrize(
    ("group", "field", "series"),
    [
        ("latency", "avg_per_token_latency", [51.0]),
        ("cache_performance", "overall_hit_rate", [0.9, 0.79]),
        ("quality_metrics", "quality_score", [0.5]),
        ("quality_metrics", "quality_score", []),
        ("quality_metrics", "quality_score", [None]),
    ],
)
def test_poor_or_missing_figures_only_warn(good, group: str, field: str, series) -> None:
    metrics = {**GOOD["GET /api/v1/llm/metrics"]}
    metrics["inference_metrics"] = {**metrics["inference_metrics"], group: {field: series}}
    good.routes["GET /api/v1/llm/metrics"] = metrics
    checks = _checks(good)
    assert _by_verdict(checks, Verdict.FAIL) == []
    assert len(_by_verdict(checks, Verdict.WARN)) == 1


def test_no_server_is_told_once(novacron) -> None:
    result = novacron("validate", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert result.output.count("FAIL") == result.output.count("No server answers") == 1
