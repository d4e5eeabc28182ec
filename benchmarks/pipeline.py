"""What a pipeline of stages on one host costs and brings, beside one process with as many threads.

    novacron bench make-model /tmp/1b                             # a Llama of 1.1 B random weights
    python benchmarks/pipeline.py decode --model /tmp/1b          # steps of 8 streams
    python benchmarks/pipeline.py links --model DIR               # stages behind links on loopback
    python benchmarks/pipeline.py handover                        # hidden states of a step

`decode` takes turns between the engines, some tokens each, and gives ratios of medians: what else
runs on the machine disturbs all of them. All of an engine is in it: scheduler, sampling, handovers.
`share` is what handovers take of a step, as `handover` measures them in the same run.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig, RanksApart
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.engine.build import build_core, load_executor
from novacron.engine.core import EngineCore
from novacron.engine.link.keys import write_key
from novacron.parallel.handover import Receiver, Sender
from novacron.parallel.shared_memory import Piece, SharedMemory
from novacron.records.request import Request, SamplingParams
from novacron.testing.rank_hosts import LEADER, RankHost

PROMPT_TOKENS = 32
ROUNDS_IN_TURN, TURNS = 6, 10
HANDOVERS = 2000
_HERE = RanksApart()
RING = Piece((1, 16, 4096), torch.bfloat16)


@dataclass
class Contestant:
    """An engine with its streams, of which each wants as many tokens as the bench will take."""

    name: str
    core: EngineCore
    streams: int
    tokens: dict[str, list[int]] = field(default_factory=dict)
    rounds_s: list[float] = field(default_factory=list)  # a token of each stream

    def start(self) -> None:
        chosen = random.Random(0)
        for stream in range(self.streams):
            prompt = tuple(chosen.choices(range(10, 3000), k=PROMPT_TOKENS))
            sampling = SamplingParams(temperature=0.0, max_tokens=900, ignore_eos=True, seed=0)
            self.core.add(
                Request(
                    request_id=str(stream),
                    prompt_token_ids=prompt,
                    sampling=sampling,
                    arrival_time_s=0.0,
                )
            )
            self.tokens[str(stream)] = []
        while not all(self.tokens.values()):
            self.take(1)
        self.take(4 * self.streams)

    def take(self, num_tokens: int) -> None:
        """Step until so many tokens more are there."""
        while num_tokens > 0:
            for output in self.core.step():
                self.tokens[output.request_id] += output.new_token_ids
                num_tokens -= len(output.new_token_ids)

    def turn(self) -> None:
        self.take(self.streams)  # what is in flight was begun in another time
        for _ in range(ROUNDS_IN_TURN):
            started_s = time.perf_counter()
            self.take(self.streams)
            self.rounds_s.append(time.perf_counter() - started_s)


def load(
    name: str, folder: Path, streams: int, apart: RanksApart = _HERE, **model: Any
) -> Contestant:
    config = EngineConfig(
        model=ModelConfig(kernels="native", max_model_len=1024, model=str(folder), **model),
        apart=apart,
        cache=CacheConfig(kv_cache_memory=2**30, kv_ram_size=0, kv_disk_size=0),
        scheduler=SchedulerConfig(max_num_seqs=streams),
    )
    executor = load_executor(config, folder, lambda phase, fraction: None)
    return Contestant(name, build_core(config, executor, folder), streams)


def measure_decode(
    folder: Path, stages: int, threads: int, streams: int, wait: Callable[[], None], **model: Any
) -> None:
    """Raises AssertionError if they do not choose the same tokens."""
    staged = {"pipeline_parallel_size": stages, "num_threads": threads, **model}
    contestants = [
        load(f"1 process, {threads} threads", folder, streams, num_threads=threads, **model),
        load(
            f"{stages} stages, {stages} steps in flight",
            folder, streams, pipeline_steps_in_flight=stages, **staged,
        ),
        load(
            f"{stages} stages, 1 step in flight",
            folder, streams, pipeline_steps_in_flight=1, **staged,
        ),
    ]  # fmt: skip
    compare(contestants, streams, stages, wait, f"{model or 'bfloat16'}")


def measure_links(
    folder: Path, stages: int, threads: int, streams: int, wait: Callable[[], None], **model: Any
) -> None:
    """The same with stages that are reached over encrypted links, as if they were on other hosts.
    Raises AssertionError if they do not choose the same tokens."""
    staged = {"pipeline_parallel_size": stages, "num_threads": threads, **model}
    with ExitStack() as stack:
        key = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "link.key"
        write_key(key, LEADER)

        def apart(compression: Literal["none", "int8"] = "none") -> RanksApart:
            ranks = [stack.enter_context(RankHost(threads)) for _ in range(stages - 1)]
            return RanksApart(
                hosts=tuple(rank.address for rank in ranks),
                link_key=str(key),
                compression=compression,
            )

        contestants = [
            load(
                "shared memory, 1 step in flight",
                folder, streams, pipeline_steps_in_flight=1, **staged,
            ),
            load(
                "links, 1 step in flight",
                folder, streams, apart(), pipeline_steps_in_flight=1, **staged,
            ),
            load(
                f"links, {stages} steps in flight",
                folder, streams, apart(), pipeline_steps_in_flight=stages, **staged,
            ),
        ]  # fmt: skip
        compare(contestants, streams, stages, wait, f"{model or 'bfloat16'}")


def compare(
    contestants: list[Contestant], streams: int, stages: int, wait: Callable[[], None], name: str
) -> None:
    """In turns; the first is the measure of the others."""
    for one in contestants:
        one.start()
    wait()
    handover_s = handover_time_s(streams)
    for _ in range(TURNS):
        for one in contestants:
            one.turn()
    reference = statistics.median(contestants[0].rounds_s)
    print(f"{name}, {streams} streams; a handover takes {handover_s * 1e6:.0f} us")
    for one in contestants:
        median = statistics.median(one.rounds_s)
        best = statistics.quantiles(one.rounds_s, n=10)[0]
        share = "" if one is contestants[0] else f", share {stages * handover_s / median:.2%}"
        print(
            f"  {one.name:32} {median * 1e3:7.2f} ms a round (tenth percentile {best * 1e3:.2f}), "
            f"speed {reference / median:.3f}{share}",
            flush=True,
        )
        one.core.shutdown()
    shortest = min(len(tokens) for one in contestants for tokens in one.tokens.values())
    kept = [{name: t[:shortest] for name, t in one.tokens.items()} for one in contestants]
    assert all(found == kept[0] for found in kept), "the engines chose other tokens"
    print(f"  {shortest * streams} equal tokens", flush=True)


def handover_time_s(rows: int) -> float:
    """Of so many rows, one way: half of what there and back takes, with a process that sleeps."""
    shared = SharedMemory({"there": RING, "back": RING})
    there, back = os.pipe(), os.pipe()
    arguments = ["echo", "--descriptors", str(shared.descriptor), str(there[0]), str(back[1])]
    arguments += ["--streams", str(rows)]
    other = subprocess.Popen(
        [sys.executable, __file__, *arguments], pass_fds=(shared.descriptor, there[0], back[1])
    )
    sender = Sender(shared.tensors["there"], [there[1]])
    receiver = Receiver(shared.tensors["back"], back[0])
    x_TD = torch.ones(rows, RING.shape[2], dtype=RING.dtype)
    times = []
    for _ in range(HANDOVERS):
        started_s = time.perf_counter()
        sender.hand_over(0, x_TD)
        receiver.take(0, rows)
        times.append((time.perf_counter() - started_s) / 2)
    other.wait()
    for pipe in (*there, *back):
        os.close(pipe)
    shared.close_descriptor()
    return statistics.median(times)


def echo(descriptor: int, entry: int, exit_: int, rows: int) -> None:
    tensors = SharedMemory({"there": RING, "back": RING}, descriptor).tensors
    receiver, sender = Receiver(tensors["there"], entry), Sender(tensors["back"], [exit_])
    for _ in range(HANDOVERS):
        sender.hand_over(0, receiver.take(0, rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("decode", "links", "handover", "echo"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--quiet", help="a command to run once everything is loaded")
    parser.add_argument("--descriptors", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    def wait() -> None:
        if arguments.quiet:
            subprocess.run(arguments.quiet, shell=True, check=True)

    match arguments.what:
        case "decode" | "links":
            measure = measure_decode if arguments.what == "decode" else measure_links
            measure(
                arguments.model,
                arguments.stages,
                arguments.threads,
                arguments.streams,
                wait,
                quantization=arguments.quantization,
            )
        case "handover":
            print(f"{handover_time_s(arguments.streams) * 1e6:.1f} us for {arguments.streams} rows")
        case "echo":
            echo(*arguments.descriptors, arguments.streams)


if __name__ == "__main__":
    main()
