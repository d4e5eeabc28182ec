"""How much of a decoding step is spent outside the native kernels.

    novacron bench make-model /tmp/1b                          # a Llama of 1.1 B random weights
    python benchmarks/step_overhead.py [--threads N] [--model /tmp/1b] [--streams 1,32]

Drives an engine as its process does: a step, its news encoded and sent over ZeroMQ, a look at the
inbox. Inside are the calls of the native library; everything else is outside. Both are taken from
the same steps, so their ratio holds on a busy machine, too; of absolute times look at the tenth
percentile there.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.demo import bundled_model_path
from novacron.engine.build import build_core
from novacron.engine.core import EngineCore
from novacron.executor.inline import InlineExecutor
from novacron.kernels.native.library import NativeContext
from novacron.records import wire
from novacron.records.request import Request, SamplingParams

PROMPT_TOKENS, WARM_UP_STEPS = 32, 5
SAMPLINGS = {
    "greedy": SamplingParams(temperature=0.0),
    "sampled": SamplingParams(temperature=0.8, top_k=40, top_p=0.9),
}


class KernelClock:
    """Adds up the time inside the native library's functions, which it replaces by timed ones."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        library = NativeContext(1).library
        for name in [name for name in vars(library) if name.startswith("novacron_")]:
            setattr(library, name, self._timed(getattr(library, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            started_s = time.perf_counter()
            result = function(*arguments)
            self.elapsed_s += time.perf_counter() - started_s
            return result

        return timed


class Mailbox:
    """Sockets as between engine process and client, both ends of them in this process."""

    def __init__(self, folder: str) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._outbox, self._client = context.socket(zmq.PUSH), context.socket(zmq.PULL)
        self._inbox = context.socket(zmq.PULL)
        self._client.bind(f"ipc://{folder}/outbox")
        self._inbox.bind(f"ipc://{folder}/inbox")
        self._outbox.connect(f"ipc://{folder}/outbox")

    def exchange(self, message: wire.FromEngine) -> None:
        self._outbox.send(wire.encode(message))
        self._inbox.poll(0)

    def empty(self) -> None:
        while self._client.poll(1):
            self._client.recv()


def build(folder: Path, num_threads: int) -> EngineCore:
    config = EngineConfig(
        model=ModelConfig(num_threads=num_threads, kernels="native"),
        cache=CacheConfig(kv_cache_memory=2**30),
    )
    executor = InlineExecutor(
        config.model, config.cache, config.scheduler,
        model_path=folder, progress=lambda phase, fraction: None,
    )  # fmt: skip
    core = build_core(config, executor, folder)
    gc.collect()
    gc.freeze()  # as the engine process does
    return core


def add_requests(core: EngineCore, streams: int, steps: int, sampling: SamplingParams) -> None:
    numbers = random.Random(streams)
    for stream in range(streams):
        core.add(
            Request(
                request_id=str(stream),
                prompt_token_ids=tuple(numbers.choices(range(10, 3000), k=PROMPT_TOKENS)),
                sampling=SamplingParams(
                    temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
                    max_tokens=WARM_UP_STEPS + steps + 2, ignore_eos=True, seed=stream,
                ),
                arrival_time_s=time.monotonic(),
            )
        )  # fmt: skip


def measure(
    core: EngineCore, clock: KernelClock, mailbox: Mailbox, steps: int
) -> tuple[list[float], list[float]]:
    """Seconds inside and outside the kernels of each decoding step."""
    inside, outside = [], []
    for number in range(1 + WARM_UP_STEPS + steps):
        clock.elapsed_s, started_s = 0.0, time.perf_counter()
        outputs = core.step()
        mailbox.exchange(wire.Outputs(tuple(outputs), core.stats()))
        step_s = time.perf_counter() - started_s
        if number > WARM_UP_STEPS:
            inside.append(clock.elapsed_s)
            outside.append(step_s - clock.elapsed_s)
    core.abort_all()
    while core.has_work:
        core.step()
    mailbox.empty()
    return inside, outside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, default=bundled_model_path())
    parser.add_argument("--streams", default="1,32")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    clock = KernelClock()
    core = build(arguments.model, arguments.threads)
    print(f"{'streams':>8} {'':8} {'kernels us':>20} {'outside us':>20} {'outside':>8}")
    print(f"{'':8} {'':8} {'p10':>10}{'median':>10} {'p10':>10}{'median':>10} {'of step':>8}")
    with tempfile.TemporaryDirectory() as folder:
        mailbox = Mailbox(folder)
        for streams in map(int, arguments.streams.split(",")):
            for name, sampling in SAMPLINGS.items():
                add_requests(core, streams, arguments.steps, sampling)
                inside, outside = measure(core, clock, mailbox, arguments.steps)
                shares = [out / (out + inner) for inner, out in zip(inside, outside, strict=True)]
                cells = [
                    f"{1e6 * sorted(side)[len(side) // 10]:10.0f}"
                    f"{1e6 * statistics.median(side):10.0f}"
                    for side in (inside, outside)
                ]
                share = f"{statistics.median(shares):8.1%}"
                print(f"{streams:8} {name:8} {cells[0]} {cells[1]} {share}")
    core.shutdown()
    zmq.Context.instance().destroy(linger=0)


if __name__ == "__main__":
    main()
