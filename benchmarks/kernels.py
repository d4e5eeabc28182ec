"""Native kernels against torch, in turn: products of several shapes, then whole steps of a model.

    python benchmarks/kernels.py [--threads N] [--model FOLDER]

Only the ratios of one run mean anything: both sides are measured alternately, and the best of
several rounds counts, because whatever else a machine does can only make a measurement slower.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from torch.nn import functional as F

from novacron.demo import bundled_model_path
from novacron.executor.placement import keep_freed_memory
from novacron.kernels.choice import choose_kernels
from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.linear import NativeLinear
from novacron.models.decoder import Decoder
from novacron.parallel.groups import SINGLE
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors, plain_formats
from novacron.testing.reference import load_decoder_with

SHAPES = [(5632, 2048), (2048, 5632), (768, 256), (1536, 256), (256, 768), (3072, 256)]
ROWS = (1, 8, 32, 512)
ROUNDS = 5
COLD_BYTES = 100 * 2**20  # of different weights in turn, so that large ones come from memory


def fastest_s(run: Callable[[], object], budget_s: float = 0.1) -> float:
    """The median of some repetitions."""
    times = []
    end = time.perf_counter() + budget_s
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def in_turn(*sides: Callable[[], object]) -> list[float]:
    rounds = [[fastest_s(side) for side in sides] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def compare_products(num_threads: int) -> None:
    context = NativeContext(num_threads)
    print(f"{'product':>22} {'rows':>5} {'torch us':>9} {'native us':>9}  faster  GB/s GFLOP/s")
    for dtype in (torch.bfloat16, torch.float32):
        for outputs, inputs in SHAPES:
            size = outputs * inputs
            copies = max(1, min(4, COLD_BYTES // (size * dtype.itemsize))) if size > 1e6 else 1
            weights = [torch.randn(outputs, inputs).to(dtype) for _ in range(copies)]
            packed = [NativeLinear(context, weight) for weight in weights]
            for rows in ROWS:
                x, turn = torch.randn(rows, inputs).to(dtype), count()
                torch_s, native_s = in_turn(
                    lambda x=x, turn=turn: F.linear(x, weights[next(turn) % copies]),  # noqa: B023
                    lambda x=x, turn=turn: packed[next(turn) % copies](x),  # noqa: B023
                )
                name = f"{str(dtype).removeprefix('torch.')} {outputs}x{inputs}"
                print(
                    f"{name:>22} {rows:5} {torch_s * 1e6:9.0f} {native_s * 1e6:9.0f} "
                    f"{torch_s / native_s:6.2f}x {size * dtype.itemsize / native_s / 1e9:5.1f} "
                    f"{2 * size * rows / native_s / 1e9:7.0f}"
                )


def step_of(decoder: Decoder, streams: int, context: int) -> Callable[[], object]:
    """One decoding step of `streams` requests that have `context` tokens each."""
    device, block_size = torch.device("cpu"), 16
    per_stream = -(-(context + 1) // block_size)
    dtype = decoder.output.matrix.weight.dtype
    kv_tensors = KVTensors(
        decoder.config, SINGLE, num_blocks=streams * per_stream, block_size=block_size,
        formats=plain_formats(decoder.config, dtype), device=device,
    )  # fmt: skip
    batch = InputBatch(
        max_num_seqs=streams, max_num_tokens=streams, max_model_len=context + 16,
        block_size=block_size, device=device,
    )  # fmt: skip
    decoder.set_context(context + 16)
    new, parts = [], []
    for stream in range(streams):
        blocks = tuple(range(stream * per_stream, (stream + 1) * per_stream))
        prompt = tuple(range(10, 11 + context))
        prompt = tuple(token % decoder.config.vocab_size for token in prompt)
        new.append(NewRequest(str(stream), prompt, len(prompt), SamplingParams(seed=0)))
        parts.append(ScheduledTokens(str(stream), context, 1, blocks))
    step = SchedulerOutput(0, tuple(new), tuple(parts), (), ())
    batch.update(step)
    inputs = batch.prepare(step)

    @torch.inference_mode()
    def run() -> object:
        hidden = decoder(
            inputs.token_ids_T, inputs.positions_T, inputs.attention, kv_tensors.layers
        )
        return decoder.logits(hidden)

    return run


def compare_steps(folder: Path, num_threads: int) -> None:
    print(f"\n{'step':>22} {'streams':>7} {'context':>7} {'torch ms':>8} {'native ms':>9}  faster")
    for dtype in (torch.bfloat16, torch.float32):
        decoders = [
            load_decoder_with(
                choose_kernels(kind, torch.device("cpu"), dtype, num_threads), folder, dtype
            )
            for kind in ("torch", "native")
        ]
        for streams, context in ((1, 64), (1, 1024), (32, 256)):
            torch_s, native_s = in_turn(*(step_of(d, streams, context) for d in decoders))
            print(
                f"{str(dtype).removeprefix('torch.'):>22} {streams:7} {context:7} "
                f"{torch_s * 1e3:8.2f} {native_s * 1e3:9.2f} {torch_s / native_s:6.2f}x"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, default=bundled_model_path())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    compare_steps(arguments.model, arguments.threads)
    compare_products(arguments.threads)


if __name__ == "__main__":
    main()
