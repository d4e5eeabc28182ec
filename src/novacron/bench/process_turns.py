"""Processes that take turns while they work: a slow moment of the machine harms all alike."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

Result = TypeVar("Result")


async def in_turns(
    pids: Sequence[int], work: Sequence[Coroutine[Any, Any, Result]], turn_s: float
) -> tuple[list[Result], list[float]]:
    """Await for each process what it is to do, letting only one run at a time, for `turn_s` in
    turn; the others are stopped, all of their threads. Returns what came of it, and for how many
    seconds each ran until then. In the end all run again, whatever happens."""
    tasks = [asyncio.create_task(one) for one in work]
    ran_s = [0.0] * len(tasks)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        while not all(task.done() for task in tasks):
            for place, (pid, task) in enumerate(zip(pids, tasks, strict=True)):
                if task.done():
                    continue
                began_s = time.perf_counter()
                os.kill(pid, signal.SIGCONT)
                await asyncio.wait((task,), timeout=turn_s)
                os.kill(pid, signal.SIGSTOP)
                ran_s[place] += time.perf_counter() - began_s
        return [task.result() for task in tasks], ran_s
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for task in tasks:
            task.cancel()
