"""novacron validate: does a running server do what a deployment needs?

The checks are those of the deployment script in NovaCron's original design: health, the model
loaded (it is loaded if need be), workers, an answer, and the metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from novacron.cli.api_client import DEFAULT_URL, ApiClient, Json
from novacron.cli.checks import Check, Verdict, show
from novacron.cli.target import configured_key
from novacron.errors import ModelNotFound, NotReady, NovaCronError

_POLL_S = 1.0
_QUESTION = "What is the capital of France?"
_SLOW_ANSWER_S = 5.0
_SLOW_TOKEN_MS = 50.0
_LOW_HIT_RATE = 0.8
_LOW_QUALITY = 0.9


@dataclass(frozen=True)
class Expectations:
    """What is asked of the server, beside that it works."""

    model: str | None
    min_workers: int
    load_timeout_s: float


@click.command()
@click.argument("url", default=DEFAULT_URL)
@click.option("--api-key", help="key for the server [default: NOVACRON_API_KEY]")
@click.option("--model", help="model to check [default: the first one]")
@click.option(
    "--min-workers",
    default=1,
    type=click.IntRange(min=0),
    help="fail below so many active workers [default: 1, one machine; set it to what a cluster "
    "needs to be worth its traffic, 4 in the original design]",
)
@click.option(
    "--load-timeout", default=600.0, help="seconds to wait for the model to load [default: 600]"
)
@click.pass_context
def validate(
    ctx: click.Context,
    /,
    url: str,
    api_key: str | None,
    model: str | None,
    min_workers: int,
    load_timeout: float,
) -> None:
    """Check the server at URL: health, model, workers, an answer, metrics.

    Exit code 1 if a check fails; warnings do not count.
    """
    expectations = Expectations(model, min_workers, load_timeout)
    with ApiClient(url, api_key or configured_key()) as client:
        exit_code = show(run_checks(client, expectations, wait=time.sleep))
    click.echo("Validation failed." if exit_code else f"{client.url} is ready for use.")
    ctx.exit(exit_code)


def run_checks(
    client: ApiClient, expectations: Expectations, *, wait: Callable[[float], None]
) -> Iterator[Check]:
    """All checks in order. One that cannot be carried out fails, and stops the others only where no
    server answers.

    The model comes before the workers, because a worker lives only as long as its model is loaded.
    """
    checks: dict[str, Callable[[], Iterator[Check]]] = {
        "health": lambda: _health(client),
        "model": lambda: _model(client, expectations, wait),
        "workers": lambda: _workers(client, expectations.min_workers),
        "inference": lambda: _inference(client, expectations.model),
        "metrics": lambda: _metrics(client),
    }
    for subject, check in checks.items():
        try:
            yield from check()
        except NovaCronError as error:
            yield Check(Verdict.FAIL, subject, str(error))
            if isinstance(error, NotReady):
                return
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            yield Check(Verdict.FAIL, subject, f"the answer is not of the agreed form: {error!r}")


def _health(client: ApiClient) -> Iterator[Check]:
    status = client.get("/health")["status"]
    if status == "healthy":
        yield Check(Verdict.PASS, "health", "healthy")
    else:
        yield Check(Verdict.FAIL, "health", f"status is '{status}'", "Look at the server's log.")


def _workers(client: ApiClient, min_workers: int) -> Iterator[Check]:
    status = client.get("/api/v1/llm/cluster/status")
    active, total = status["cluster"]["active_workers"], status["cluster"]["total_workers"]
    if active < min_workers:
        remedy = "Start more workers, or lower --min-workers."
        yield Check(Verdict.FAIL, "workers", f"{active} active, {min_workers} needed", remedy)
        return
    yield Check(Verdict.PASS, "workers", f"{active} of {total} active")
    if active != total:
        idle = [str(one["worker_id"]) for one in status["workers"] if one["status"] != "active"]
        yield Check(Verdict.WARN, "workers", f"not active: {', '.join(idle)}")


def _model(
    client: ApiClient, expectations: Expectations, wait: Callable[[float], None]
) -> Iterator[Check]:
    name, status = _find_model(client, expectations.model)
    if status != "loaded":
        yield Check(Verdict.WARN, "model", f"{name} is {status}", "Loading it now.")
        if status == "unloaded":
            client.post(f"/api/v1/llm/models/{name}/load", {})
        waited_s = 0.0
        while status not in ("loaded", "failed") and waited_s < expectations.load_timeout_s:
            wait(_POLL_S)
            waited_s += _POLL_S
            _, status = _find_model(client, name)
    if status == "loaded":
        yield Check(Verdict.PASS, "model", f"{name} is loaded")
    else:
        remedy = "Look at the server's log, or raise --load-timeout."
        yield Check(Verdict.FAIL, "model", f"{name} is still {status}", remedy)


def _find_model(client: ApiClient, name: str | None) -> tuple[str, str]:
    models: list[Json] = client.get("/api/v1/llm/models")["models"]
    for model in models:
        if name in (None, model["id"]):
            return str(model["id"]), str(model["status"])
    raise ModelNotFound(str(name), tuple(str(model["id"]) for model in models))


def _inference(client: ApiClient, model: str | None) -> Iterator[Check]:
    name, _ = _find_model(client, model)
    started_s = time.perf_counter()
    answer = client.post(
        "/api/v1/llm/chat/completions",
        {
            "model": name,
            "messages": [{"role": "user", "content": _QUESTION}],
            "max_tokens": 100,
            "temperature": 0.1,
        },
    )
    elapsed_s = time.perf_counter() - started_s
    content = answer["choices"][0]["message"]["content"]
    if not content:
        yield Check(Verdict.FAIL, "inference", "the answer is empty")
        return
    yield Check(Verdict.PASS, "inference", f"{_QUESTION} -> {content!r} in {elapsed_s:.2f} s")
    if elapsed_s > _SLOW_ANSWER_S:
        yield Check(Verdict.WARN, "inference", f"slow: more than {_SLOW_ANSWER_S:g} s")


def _metrics(client: ApiClient) -> Iterator[Check]:
    metrics = client.get("/api/v1/llm/metrics")
    inference = metrics["inference_metrics"]
    yield Check(Verdict.PASS, "metrics", f"{metrics['active_requests']} active requests")
    yield _judge(
        "latency per token (ms)",
        inference["latency"]["avg_per_token_latency"],
        lambda latency_ms: latency_ms <= _SLOW_TOKEN_MS,
        f"above {_SLOW_TOKEN_MS:g} ms",
    )
    yield _judge(
        "cache hit rate",
        inference["cache_performance"]["overall_hit_rate"],
        lambda rate: rate >= _LOW_HIT_RATE,
        f"below {_LOW_HIT_RATE:g}; it grows with prompts that share beginnings",
    )
    yield _judge(
        "quality score",
        inference["quality_metrics"]["quality_score"],
        lambda score: score >= _LOW_QUALITY,
        f"below {_LOW_QUALITY:g}",
        unknown="no evaluation was told to the server (--quality-score)",
    )


def _judge(
    subject: str,
    series: list[float | None],
    is_good: Callable[[float], bool],
    complaint: str,
    unknown: str = "not measured yet",
) -> Check:
    """By the newest value of a series. A series without one is no failure: nothing ran yet."""
    newest = series[-1] if series else None
    if newest is None:
        return Check(Verdict.WARN, subject, unknown)
    if is_good(newest):
        return Check(Verdict.PASS, subject, f"{newest:.3g}")
    return Check(Verdict.WARN, subject, f"{newest:.3g} is {complaint}")
