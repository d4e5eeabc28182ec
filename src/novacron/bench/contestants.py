"""Three ways to the same engine, driven alike: the bare core, its client, and HTTP.

What a way costs is the difference to the one before it: a process line and detokenisation, then
HTTP and JSON on both sides. Idle contestants wait without using the processor.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from novacron.bench.batch import Batch, BatchTimes
from novacron.bench.child_process import start_child
from novacron.bench.rounds import CORE, HTTP, PROCESS
from novacron.bench.server import own_kv_folder
from novacron.bench.target import LocalEngine, Target, check
from novacron.bench.transcript import Transcript, read_transcript
from novacron.bench.workload import Prompt
from novacron.engine.engine_arguments import EngineArguments
from novacron.engine.process_client import ProcessClient
from novacron.errors import ConfigError, EngineDead, RequestFailed
from novacron.records.request import FinishReason, Request, SamplingParams

_CHILD = "novacron.bench.engine_alone"


class Contestant(Protocol):
    """One way to the engine."""

    @property
    def name(self) -> str: ...

    async def run_batch(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Transcript]:
        """Start all prompts at once; return when all are done. Raises RequestFailed."""
        ...


class OverHttp:
    """A client of the server, with a connection per stream."""

    name = HTTP

    def __init__(self, target: Target) -> None:
        self._target = target

    async def run_batch(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Transcript]:
        bodies = [self._target.body(prompt, max_tokens) for prompt in prompts]
        await self._target.client.open_connections(len(bodies))
        exchanges = await asyncio.gather(*map(self._target.record, bodies))
        return check([read_transcript(exchange) for exchange in exchanges])


class ThroughClient:
    """A ProcessClient in this process: what the gateway drives, without the gateway."""

    name = PROCESS

    def __init__(self, client: ProcessClient) -> None:
        self._client = client
        self._ids = itertools.count()

    async def run_batch(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Transcript]:
        requests = [_request(f"b{next(self._ids)}", prompt, max_tokens) for prompt in prompts]
        return check(await asyncio.gather(*map(self._consume, requests)))

    async def _consume(self, request: Request) -> Transcript:
        started_s = time.perf_counter()
        arrivals: list[float] = []
        text: list[str] = []
        num_tokens, error = 0, None
        async for output in self._client.generate((request,)):
            if output.token_ids:
                arrivals.append(time.perf_counter() - started_s)
                num_tokens = output.num_output_tokens
                text.append(output.text)
            if output.finish_reason is FinishReason.ERROR:
                error = output.error
        return Transcript(
            started_s=started_s,
            arrivals_s=tuple(arrivals),
            e2e_s=arrivals[-1] if arrivals else 0.0,
            num_output_tokens=num_tokens,
            num_prompt_tokens=len(request.prompt_token_ids),
            text="".join(text),
            error=error,
        )


class BareCore:
    """An EngineCore in a process where nothing else happens."""

    name = CORE

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run_batch(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Transcript]:
        batch = Batch(next(self._ids), tuple(map(_token_ids, prompts)), max_tokens)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(batch) + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise EngineDead("The engine core of the benchmark ended; its error is above.")
        times = msgspec.json.decode(line, type=BatchTimes)
        return check([_transcript(batch, times, number) for number in range(len(prompts))])


@contextlib.asynccontextmanager
async def engine_client(engine: LocalEngine) -> AsyncIterator[ProcessClient]:
    """An engine process of our own, ready."""
    with own_kv_folder() as folder:
        client = ProcessClient(engine.keeping_blocks_in(folder), engine.model_path)
        try:
            await client.start()
            await client.wait_ready()
            yield client
        finally:
            await client.close()


@contextlib.asynccontextmanager
async def bare_core(engine: LocalEngine) -> AsyncIterator[BareCore]:
    with own_kv_folder() as folder:
        async with _bare_core(engine, folder) as core:
            yield core


@contextlib.asynccontextmanager
async def _bare_core(engine: LocalEngine, folder: str) -> AsyncIterator[BareCore]:
    process = await start_child(_CHILD, engine)
    assert process.stdin is not None
    arguments = EngineArguments(
        config=engine.keeping_blocks_in(folder),
        model_path=str(engine.model_path),
        inbox="",
        outbox="",
    )
    process.stdin.write(msgspec.json.encode(arguments) + b"\n")
    try:
        yield BareCore(process)
    finally:
        process.stdin.close()
        await process.wait()


def _token_ids(prompt: Prompt) -> tuple[int, ...]:
    if isinstance(prompt, str):
        raise ConfigError(
            "Engine and HTTP are compared on the same token ids; leave out --route chat and "
            "--prompts text, or choose --through http."
        )
    return prompt


def _request(request_id: str, prompt: Prompt, max_tokens: int) -> Request:
    sampling = SamplingParams(
        temperature=0.0,
        max_tokens=max_tokens,
        ignore_eos=True,
        seed=0,
        skip_special_tokens=False,
    )
    return Request(
        request_id=request_id,
        prompt_token_ids=_token_ids(prompt),
        sampling=sampling,
        arrival_time_s=time.monotonic(),
    )


def _transcript(batch: Batch, times: BatchTimes, number: int) -> Transcript:
    arrivals = tuple(at_s - times.started_s for at_s in times.token_times_s[number])
    if not arrivals:
        raise RequestFailed("The engine core gave no token; run the model with novacron chat.")
    return Transcript(
        started_s=times.started_s,
        arrivals_s=arrivals,
        e2e_s=arrivals[-1],
        num_output_tokens=len(arrivals),
        num_prompt_tokens=len(batch.prompts[number]),
    )
