"""novacron run-batch: work off a file of requests, many at a time, and go on after a break."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import click
import httpx2

from novacron.cli.api_client import ApiClient, authorization, base_url, retry_after_s
from novacron.cli.background_server import Endpoint
from novacron.cli.batch_file import BatchRequest, BatchResult, keep_successes, read_requests
from novacron.cli.options import settings_command
from novacron.cli.target import target, target_options

_ATTEMPTS = 6  # for a server that is busy, loading or restarting
_LONGEST_WAIT_S = 30.0
_TIMEOUT = httpx2.Timeout(None, connect=10.0)


@settings_command("model", "scheduler")
@target_options
@click.option(
    "-i",
    "--input-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSONL with custom_id, method, url and body on each line",
)
@click.option(
    "-o",
    "--output-file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSONL to write; requests that it answers already are skipped",
)
@click.option(
    "--max-concurrency", default=32, type=click.IntRange(min=1), help="[default: 32] at a time"
)
@click.pass_context
def run_batch(
    ctx: click.Context,
    /,
    url: str | None,
    client_key: str | None,
    input_file: Path,
    output_file: Path,
    max_concurrency: int,
    **flags: object,
) -> None:
    """Work off a file of requests in the format of OpenAI's batch API.

    Run it again with the same files to go on after a break: answers that are there are kept, failed
    ones are tried again. Exit code 1 if any request failed.
    """
    requests = read_requests(input_file)
    done = keep_successes(output_file)
    waiting = [request for request in requests if request.custom_id not in done]
    num_skipped = len(requests) - len(waiting)
    if not waiting:
        click.echo(f"Nothing to do: all {num_skipped} requests are answered in {output_file}.")
        return
    with (
        target(url, client_key, flags) as endpoint,
        output_file.open("a", encoding="utf-8") as output,
        _progress(len(waiting)) as advance,
    ):
        with ApiClient(endpoint.url, endpoint.api_key) as client:
            client.get("/v1/models")  # nobody there, or a wrong key: say so now, and only once
        tally = asyncio.run(_run(endpoint, waiting, max_concurrency, output, advance))
    click.echo(tally.summary(num_skipped), err=True)
    ctx.exit(1 if tally.num_failed else 0)


@dataclass
class _Tally:
    started_s: float
    num_done: int = 0
    num_failed: int = 0
    num_output_tokens: int = 0

    @property
    def num_finished(self) -> int:
        return self.num_done + self.num_failed

    def add(self, result: BatchResult) -> None:
        self.num_done += result.ok
        self.num_failed += not result.ok
        usage = (result.body or {}).get("usage") or {}
        self.num_output_tokens += usage.get("completion_tokens") or 0

    def summary(self, num_skipped: int) -> str:
        elapsed_s = time.perf_counter() - self.started_s
        return (
            f"{self.num_done} answered, {self.num_failed} failed, {num_skipped} skipped in "
            f"{elapsed_s:.1f} s, {self.num_output_tokens / elapsed_s:.1f} tokens/s generated."
        )


_Advance = Callable[[_Tally], None]


async def _run(
    endpoint: Endpoint,
    requests: Iterable[BatchRequest],
    max_concurrency: int,
    output: TextIO,
    advance: _Advance,
) -> _Tally:
    """Write each result as soon as it is there, in the order of completion."""
    tally = _Tally(time.perf_counter())
    queue = iter(requests)

    async def work(http: httpx2.AsyncClient) -> None:
        for request in queue:  # shared by all workers: each takes the next one
            result = await _send(http, request)
            output.write(result.to_line())
            output.flush()
            tally.add(result)
            advance(tally)

    async with (
        httpx2.AsyncClient(
            base_url=base_url(endpoint.url),
            headers=authorization(endpoint.api_key),
            timeout=_TIMEOUT,
            limits=httpx2.Limits(max_connections=max_concurrency),
        ) as http,
        asyncio.TaskGroup() as workers,
    ):
        for _ in range(max_concurrency):
            workers.create_task(work(http))
    return tally


async def _send(http: httpx2.AsyncClient, request: BatchRequest) -> BatchResult:
    """One request, tried again while the server is busy or away. Never raises."""
    delay_s = 1.0
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            response = await http.post(request.url, json=request.body)
        except httpx2.HTTPError as error:
            result = BatchResult(request.custom_id, error=f"{type(error).__name__}: {error}")
        else:
            result = _result(request, response)
            if response.status_code not in (429, 503):
                return result
            delay_s = max(delay_s, retry_after_s(response))
        if attempts_left:
            await asyncio.sleep(min(delay_s, _LONGEST_WAIT_S))
            delay_s *= 2
    return result


def _result(request: BatchRequest, response: httpx2.Response) -> BatchResult:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return BatchResult(
            request.custom_id, response.status_code, error=f"no JSON object: {response.text[:200]}"
        )
    error = None if response.is_success else str((body.get("error") or {}).get("message", body))
    return BatchResult(request.custom_id, response.status_code, body, error)


@contextmanager
def _progress(total: int) -> Iterator[_Advance]:
    """Called after each request: a bar on a terminal, else a line for each tenth."""
    if not sys.stderr.isatty():
        yield partial(_print_tenths, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda tally: bar.update(
            task, completed=tally.num_finished, description=f"{tally.num_failed} failed"
        )


def _print_tenths(total: int, tally: _Tally) -> None:
    finished = tally.num_finished
    if finished * 10 // total > (finished - 1) * 10 // total:
        click.echo(f"{finished}/{total} done, {tally.num_failed} failed", err=True)
