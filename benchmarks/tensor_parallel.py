"""What computing with several processes costs and brings, beside one process with as many threads.

    novacron bench make-model /tmp/1b                            # a Llama of 1.1 B random weights
    python benchmarks/tensor_parallel.py reduce                  # sums over ranks, and Gloo's
    python benchmarks/tensor_parallel.py decode --model /tmp/1b  # a step of one stream

`reduce` runs both ways in the same processes, in turn. `decode` takes turns between both engines,
some steps each, and gives the ratio of medians: what else runs on the machine disturbs both.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.executor import Executor
from novacron.executor.inline import InlineExecutor
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.kernels.native.communicator import NativeRanks
from novacron.kernels.native.library import AddPartialsCall, NativeContext
from novacron.kernels.ranks import ExchangeSize
from novacron.parallel.gloo import GlooCommunicator
from novacron.parallel.shared_memory import Piece, SharedMemory
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput

SIZES_BYTES = (4096, 16384, 262144)
ROUNDS, ROUNDS_IN_TURN = 40, 50
PROMPT_TOKENS, STEPS_IN_TURN, TURNS = 32, 8, 12
BLOCK_SIZE = 16


def measure_reduce(rank: int, ranks: int, descriptor: int | None, meeting_point: Path) -> None:
    """One rank: the first one prints medians and minima in microseconds."""
    torch.set_num_threads(1)
    kernels = NativeRanks(NativeContext(1))
    most = SIZES_BYTES[-1] // 4
    size = ExchangeSize(
        max_tokens=1, partial_rows=1, hidden_size=most, vocab_size=1, dtype=torch.float32
    )
    pieces = {name: Piece(*piece) for name, piece in kernels.memory(size, ranks).items()}
    shared = SharedMemory(pieces, descriptor)
    others = []
    if rank == 0:
        others = [
            _start_rank(other, ranks, shared.descriptor, meeting_point) for other in range(1, ranks)
        ]
    link = kernels.join(rank, ranks, shared.tensors, 60.0)
    gloo = GlooCommunicator(meeting_point, rank, ranks, patience_s=60)
    gloo.all_reduce(torch.zeros(1))
    for num_bytes in SIZES_BYTES:
        count = num_bytes // 4
        x, out = torch.ones(count), torch.empty(count)
        calls = [_call(link.communicator, turn, count, out) for turn in (0, 1)]
        own = [partials[rank, 0, :count] for partials in shared.tensors["partials"]]
        ours, theirs = [], []
        for _ in range(ROUNDS):
            for turn in range(ROUNDS_IN_TURN):
                own[turn % 2].copy_(x)
                started_s = time.perf_counter()
                kernels.context.stream.submit(calls[turn % 2])
                ours.append(time.perf_counter() - started_s)
            assert bool((out == ranks).all())
            for _ in range(ROUNDS_IN_TURN):
                y = x.clone()
                started_s = time.perf_counter()
                gloo.all_reduce(y)
                theirs.append(time.perf_counter() - started_s)
        if rank == 0:
            _print_row(f"{ranks} ranks, {num_bytes // 1024} KiB", ours, theirs)
    for other in others:
        other.wait()


def _call(communicator: Any, turn: int, count: int, out: torch.Tensor) -> AddPartialsCall:
    call = AddPartialsCall.from_buffer_copy(communicator._joins[turn])
    call.rows, call.size, call.out, call.out_stride = 1, count, out.data_ptr(), count
    return call


def _start_rank(
    rank: int, ranks: int, descriptor: int, meeting_point: Path
) -> subprocess.Popen[bytes]:
    arguments = ["reduce", "--rank", str(rank), "--ranks", str(ranks)]
    arguments += ["--descriptor", str(descriptor), "--meeting-point", str(meeting_point)]
    return subprocess.Popen([sys.executable, __file__, *arguments], pass_fds=(descriptor,))


def _print_row(name: str, ours: list[float], theirs: list[float]) -> None:
    def us(values: list[float]) -> str:
        return f"{statistics.median(values) * 1e6:8.1f} ({min(values) * 1e6:.1f})"

    ratio = statistics.median(theirs) / statistics.median(ours)
    print(f"{name:20} ours {us(ours)}   gloo {us(theirs)}   median {ratio:.0f} times", flush=True)


class Stream:
    """One request on an executor, a token per step."""

    def __init__(self, executor: Executor, name: str) -> None:
        self._executor, self._name, self._position = executor, name, PROMPT_TOKENS
        prompt = tuple(random.Random(0).choices(range(10, 3000), k=PROMPT_TOKENS))
        sampling = SamplingParams(temperature=0.0, seed=0)
        new = NewRequest(name, prompt, PROMPT_TOKENS, sampling)
        blocks = tuple(range(-(-PROMPT_TOKENS // BLOCK_SIZE)))
        part = ScheduledTokens(name, 0, PROMPT_TOKENS, blocks)
        result = executor.execute(SchedulerOutput(0, (new,), (part,), (), ()))
        self.token_ids = list(result.results[0].token_ids)

    def step(self) -> float:
        """Seconds that it took."""
        position = self._position
        blocks = (position // BLOCK_SIZE,) if position % BLOCK_SIZE == 0 else ()
        part = ScheduledTokens(self._name, position, 1, blocks)
        started_s = time.perf_counter()
        result = self._executor.execute(SchedulerOutput(position, (), (part,), (), ()))
        elapsed_s = time.perf_counter() - started_s
        self._position += 1
        self.token_ids += result.results[0].token_ids
        return elapsed_s


def measure_decode(folder: Path, ranks: int, **model: Any) -> None:
    """Raises AssertionError if both do not choose the same tokens."""
    streams, times = [], []
    for size in (1, ranks):
        make = InlineExecutor if size == 1 else MultiprocessExecutor
        executor = make(
            ModelConfig(
                num_threads=ranks,
                kernels="native",
                tensor_parallel_size=size,
                packed_cache_size=0,
                **model,
            ),
            CacheConfig(
                kv_cache_memory=2**28, kv_ram_size=0, kv_disk_size=0, block_size=BLOCK_SIZE
            ),
            SchedulerConfig(max_num_seqs=4),
            model_path=folder,
            progress=lambda phase, fraction: None,
        )
        streams.append(Stream(executor, str(size)))
        times.append([])
    for _ in range(TURNS):
        for stream, found in zip(streams, times, strict=True):
            found += [stream.step() for _ in range(STEPS_IN_TURN)][1:]
    assert streams[0].token_ids == streams[1].token_ids
    one, several = (statistics.median(found) for found in times)
    best_one, best_several = (statistics.quantiles(found, n=10)[0] for found in times)
    print(
        f"{model or 'bfloat16'}: one process of {ranks} threads {one * 1e3:.2f} ms "
        f"(tenth percentile {best_one * 1e3:.2f}), {ranks} processes {several * 1e3:.2f} ms "
        f"({best_several * 1e3:.2f}); speed of the latter {one / several:.3f} "
        f"({best_one / best_several:.3f}) of the former; {len(streams[0].token_ids)} equal tokens",
        flush=True,
    )
    executor.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("reduce", "decode"))
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--descriptor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--meeting-point", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what == "decode":
        measure_decode(arguments.model, arguments.ranks, quantization=arguments.quantization)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting_point = arguments.meeting_point or Path(folder) / "meeting-point"
        measure_reduce(arguments.rank, arguments.ranks, arguments.descriptor, meeting_point)


if __name__ == "__main__":
    main()
