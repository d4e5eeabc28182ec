"""Native kernels against torch, in turn: whole steps of a model, products of several shapes; and
attention over a long context with a KV cache of each precision.

    python benchmarks/kernels.py [--threads N] [--model FOLDER] [--part steps|products|kv]

Products in bfloat16, float32, and with weights in int8 and int4 (against torch's in bfloat16), each
shape beside the machine's peaks measured just before: the share of the read bandwidth, and of the
fastest product in the precision that computes (int8 for both int8 and int4).

Only the ratios of one run mean anything: both sides are measured alternately, and the best of
several rounds counts, because whatever else a machine does can only make a measurement slower.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from novacron.bench.machine_peaks import MachinePeaks, measure_peaks
from novacron.config.cache import CacheConfig
from novacron.config.kv_layers import KVPrecision
from novacron.demo import bundled_model_path
from novacron.executor.placement import keep_freed_memory
from novacron.kernels.choice import choose_kernels
from novacron.kernels.kv_format import LayerFormat, choose_kv_formats
from novacron.kernels.linear import Quantization
from novacron.kernels.metadata import AttentionMetadata, KVLayer, Row
from novacron.kernels.native.attention import NativeAttentionPlan
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
# Type of the inputs, rounding of the weights, precision whose peak is the limit.
FORMATS = [
    (torch.bfloat16, None, "bf16"),
    (torch.float32, None, "fp32"),
    *((torch.bfloat16, Quantization(8, size), "int8") for size in (32, 64, 128)),
    *((torch.bfloat16, Quantization(4, size), "int8") for size in (32, 64, 128)),
]
ROUNDS = 5
LAYERS = 8  # with caches of their own, so that these come from memory
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


def one_after_the_other(
    products: Sequence[Callable[[Tensor], Tensor]], x: Tensor
) -> Callable[[], object]:
    """Multiplies with the next of them in each call, so that weights come from memory."""
    turns = cycle(products)
    return lambda: next(turns)(x)


def compare_products(num_threads: int) -> None:
    context = NativeContext(num_threads)
    print(
        f"\n{'product':>32} {'rows':>5} {'torch us':>9} {'native us':>9}  faster"
        f"  GB/s {'of peak':>7} GOP/s {'of peak':>7}"
    )
    for dtype, quantization, limit in FORMATS:
        for outputs, inputs in SHAPES:
            size = outputs * inputs
            copies = max(1, min(4, COLD_BYTES // (size * dtype.itemsize))) if size > 1e6 else 1
            weights = [torch.randn(outputs, inputs).to(dtype) for _ in range(copies)]
            packed = [NativeLinear(context, weight, quantization) for weight in weights]
            peaks = measure_peaks(num_threads, repeats=3)
            for rows in ROWS:
                x = torch.randn(rows, inputs).to(dtype)
                by_torch = [partial(F.linear, weight=weight) for weight in weights]
                torch_s, native_s = in_turn(
                    one_after_the_other(by_torch, x), one_after_the_other(packed, x)
                )
                name = str(quantization or dtype).removeprefix("torch.")
                print(
                    f"{f'{name} {outputs}x{inputs}':>32} {rows:5} {torch_s * 1e6:9.0f} "
                    f"{native_s * 1e6:9.0f} {torch_s / native_s:6.2f}x "
                    + _beside_peaks(
                        packed[0].packed.nbytes / native_s / 1e9,
                        2 * size * rows / native_s / 1e9,
                        peaks,
                        num_threads,
                        limit,
                    ),
                    flush=True,
                )


def _beside_peaks(
    gb_per_s: float, gop_per_s: float, peaks: MachinePeaks, num_threads: int, limit: str
) -> str:
    """A small product's weights stay in caches: there the bandwidth exceeds that of memory."""
    read, compute = peaks.read_gb_per_s[num_threads], peaks.gop_per_s.get(limit)
    share = f"{gop_per_s / compute:7.0%}" if compute else f"{'-':>7}"
    return f"{gb_per_s:5.1f} {gb_per_s / read:7.0%} {gop_per_s:5.0f} {share}"


def step_of(decoder: Decoder, streams: int, context: int) -> Callable[[], object]:
    """One decoding step of `streams` requests that have `context` tokens each."""
    device, block_size = torch.device("cpu"), 16
    per_stream = -(-(context + 1) // block_size)
    dtype = decoder.dtype
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


def decode_over(
    context: NativeContext, shape: tuple[int, int, int], length: int, layer: LayerFormat
) -> Callable[[], object]:
    """The attention of one decoded token in LAYERS layers, each with a cache of its own."""
    heads, kv_heads, head_dim = shape
    block_size = 16
    num_blocks = -(-length // block_size)
    sizes = [(kv_heads, num_blocks, kind.block_bytes(block_size, head_dim)) for kind in layer]
    layers = [
        KVLayer(*(torch.zeros(size, dtype=torch.uint8) for size in sizes), layer, block_size)
        for _ in range(LAYERS)
    ]
    tables, dtype = torch.arange(num_blocks)[None], torch.bfloat16

    def step(start: int, num_tokens: int) -> AttentionMetadata:
        row = Row(0, start, num_tokens)
        return AttentionMetadata(
            rows=(row,),
            num_decodes=int(num_tokens == 1),
            block_size=block_size,
            block_tables_RB=tables,
            lengths_R=torch.tensor([row.length]),
            slots_T=torch.arange(start, row.length),
            rows_R3=torch.tensor([row]),
        )

    def qkv(num_tokens: int) -> list[torch.Tensor]:
        counts = (heads, kv_heads, kv_heads)
        return [torch.randn(num_tokens, count, head_dim).to(dtype) for count in counts]

    for start in range(0, length, 2048):  # fills the cache, with attention over the chunk alone
        num_tokens = min(2048, length - start)
        fill = NativeAttentionPlan(context, step(start, num_tokens), 1)
        parts = qkv(num_tokens)
        for layer in layers:
            fill.attend(*parts, layer, 0.125, None)
    plan, parts = NativeAttentionPlan(context, step(length - 1, 1), None), qkv(1)
    return lambda: [plan.attend(*parts, layer, 0.125, None) for layer in layers]


def compare_kv_formats(num_threads: int, length: int = 8192) -> None:
    context = NativeContext(num_threads)
    names = ("bfloat16", "float16", "bfloat16/int8", "int8", "fp8", "int8/int4", "int4")
    formats = [
        layer
        for name in names
        for layer in choose_kv_formats(
            CacheConfig(kv_cache_dtype=name), 1, KVPrecision("bfloat16", "bfloat16")
        )
    ]
    print(f"\n{'attention of a decode':>28} {'KV':>13} {'MiB':>6} {'ms':>7} {'GB/s':>6}  of bf16")
    for shape in ((32, 4, 64), (32, 8, 128), (32, 32, 64)):
        times_s = in_turn(*(decode_over(context, shape, length, layer) for layer in formats))
        for layer, time_s in zip(formats, times_s, strict=True):
            of_a_token = sum(kind.token_bytes(shape[2]) for kind in layer)
            num_bytes = LAYERS * shape[1] * length * of_a_token
            print(
                f"{f'{shape[0]}/{shape[1]} heads x {shape[2]}, {length}':>28} {layer.name:>13} "
                f"{num_bytes / 2**20:6.0f} {time_s * 1e3:7.2f} {num_bytes / time_s / 1e9:6.1f} "
                f"{times_s[0] / time_s:6.2f}x"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, default=bundled_model_path())
    parser.add_argument("--part", choices=("steps", "products", "kv"), help="default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    if arguments.part in (None, "steps"):
        compare_steps(arguments.model, arguments.threads)
    if arguments.part in (None, "products"):
        compare_products(arguments.threads)
    if arguments.part in (None, "kv"):
        compare_kv_formats(arguments.threads)


if __name__ == "__main__":
    main()
