"""A process of a benchmark that loads a model by itself, and tells what it finds line by line."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from novacron.bench.target import LocalEngine

_LONGEST_LINE_BYTES: Final = 256 * 2**20


async def start_child(module: str, engine: LocalEngine) -> Process:
    """Run `python -m module`, spoken to over its input and output, where the engine would run."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE_BYTES,
        env=dict(engine.plan.environment),
    )


@contextlib.asynccontextmanager
async def working_child(
    module: str, job: object, engine: LocalEngine
) -> AsyncIterator[asyncio.StreamReader]:
    """The lines that a child tells, of a job that is its only line of input, in JSON. It is stopped
    when nobody listens any more."""
    process = await start_child(module, engine)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        await process.stdin.drain()
        yield process.stdout
    finally:
        process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await process.wait()
