"""Processes that take turns: all get done, and none is left stopped."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from novacron.bench.process_turns import in_turns

_WORKER = """
import sys
for line in sys.stdin:
    total = sum(range(int(line)))
    print(total, flush=True)
"""


async def start_worker() -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORKER, stdin=pipe, stdout=pipe
    )


async def add_up(worker: asyncio.subprocess.Process, count: int) -> int:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{count}\n".encode())
    return int(await worker.stdout.readline())


def is_stopped(worker: asyncio.subprocess.Process) -> bool:
    return Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_all_get_done_and_run_again() -> None:
    workers = [await start_worker() for _ in range(2)]
    try:
        counts = (10, 2_000_000)
        work = [add_up(one, count) for one, count in zip(workers, counts, strict=True)]
        results, ran_s = await in_turns([one.pid for one in workers], work, 0.01)
        assert results == [sum(range(count)) for count in counts]
        assert all(seconds > 0 for seconds in ran_s)
        assert not any(map(is_stopped, workers))
        assert await add_up(workers[0], 4) == 6
    finally:
        for one in workers:
            one.kill()
            await one.wait()


async def test_what_fails_leaves_nobody_stopped() -> None:
    worker = await start_worker()

    async def fail() -> int:
        raise ValueError("no")

    try:
        with pytest.raises(ValueError, match="no"):
            await in_turns([worker.pid], [fail()], 0.01)
        assert not is_stopped(worker)
    finally:
        worker.kill()
        await worker.wait()
