"""With native kernels no bit of a logit depends on chunking, on neighbours or on threads, nor on
whether the step is captured."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from novacron.demo import bundled_model_path
from novacron.kernels.linear import FLOAT8, Quantization
from novacron.kernels.metadata import KVLayer
from novacron.kernels.native.library import NativeContext, NativeUnavailable, native_levels
from novacron.kernels.native.table import native_kernels
from novacron.models.decoder import Decoder
from novacron.parallel.groups import SINGLE
from novacron.records.request import SamplingParams
from novacron.records.step import NewRequest, ScheduledTokens, SchedulerOutput
from novacron.runner.captured_step import CapturedStep, DecoderStep, EagerStep
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors, plain_formats
from novacron.testing.reference import load_decoder_with
from novacron.testing.tiny_models import FAMILIES, VOCAB_SIZE

try:
    LEVELS = native_levels()
except NativeUnavailable:
    LEVELS = ()

pytestmark = pytest.mark.skipif(not LEVELS, reason="no native kernels")

LENGTHS = (70, 33, 5, 150)
# Parts of the prompts above, by step: every prompt whole and alone, or cut and mixed.
ALONE = [[(index, length)] for index, length in enumerate(LENGTHS)]
MIXED = [
    [(0, 40), (1, 1), (3, 17)],
    [(0, 1), (1, 1), (2, 5), (3, 100)],
    [(0, 1), (1, 31), (3, 1)],
    [(0, 28), (3, 32)],
]


MakeStep = Callable[[Decoder, Sequence[KVLayer], InputBatch], DecoderStep]


@torch.inference_mode()
def logits(
    decoder: Decoder, steps: Sequence[Sequence[tuple[int, int]]], make_step: MakeStep
) -> list[Tensor]:
    """At every position of the prompts, computed in these steps."""
    block_size, device = 16, torch.device("cpu")
    decoder.set_context(256)
    prompts = [
        tuple(random.Random(length).choices(range(5, VOCAB_SIZE), k=length)) for length in LENGTHS
    ]
    counts = [-(-length // block_size) for length in LENGTHS]
    kv_tensors = KVTensors(
        decoder.config,
        SINGLE,
        num_blocks=sum(counts),
        block_size=block_size,
        formats=plain_formats(decoder.config, decoder.dtype),
        device=device,
    )
    batch = InputBatch(
        max_num_seqs=4, max_num_tokens=160, max_model_len=256, block_size=block_size, device=device
    )
    decoder_step = make_step(decoder, kv_tensors.layers, batch)
    done = [0] * len(prompts)
    found: list[list[Tensor]] = [[] for _ in prompts]
    for number, step in enumerate(steps):
        new, parts = [], []
        for index, size in step:
            blocks: tuple[int, ...] = ()
            if done[index] == 0:
                first = sum(counts[:index])
                blocks = tuple(range(first, first + counts[index]))
                sampling = SamplingParams(seed=0)
                new.append(NewRequest(str(index), prompts[index], LENGTHS[index], sampling))
            parts.append(ScheduledTokens(str(index), done[index], size, blocks))
            done[index] += size
        output = SchedulerOutput(number, tuple(new), tuple(parts), (), ())
        batch.update(output)
        inputs = batch.prepare(output)
        hidden = decoder_step.hidden(inputs)
        rows = decoder_step.logits(hidden, range(len(hidden))).clone()
        for part in inputs.parts:
            row = part.row
            tokens = slice(row.first_token, row.first_token + row.num_tokens)
            found[int(part.scheduled.request_id)].append(rows[tokens])
    return [torch.cat(pieces) for pieces in found]


def eager(decoder: Decoder, cache: Sequence[KVLayer], batch: InputBatch) -> DecoderStep:
    return EagerStep(decoder, cache)


def check(
    folder: Path,
    dtype: torch.dtype,
    level: str,
    mixed_step: MakeStep,
    quantization: Quantization | None = None,
) -> None:
    whole, mixed = (
        logits(
            load_decoder_with(
                native_kernels(NativeContext(num_threads, level)),
                folder,
                dtype,
                quantization=quantization,
            ),
            steps,
            make_step,
        )
        for num_threads, steps, make_step in ((1, ALONE, eager), (3, MIXED, mixed_step))
    )
    assert all(torch.equal(mine, alone) for mine, alone in zip(mixed, whole, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, dtype: torch.dtype, checkpoint: Callable[..., Path]) -> None:
    check(checkpoint(family), dtype, LEVELS[-1], eager)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_families_captured(
    family: str, dtype: torch.dtype, checkpoint: Callable[..., Path]
) -> None:
    check(checkpoint(family), dtype, LEVELS[-1], CapturedStep)


@pytest.mark.parametrize(
    "quantization", [Quantization(8, 32), Quantization(4, 32), FLOAT8], ids=str
)
@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3_moe"])
def test_families_with_rounded_weights(
    family: str, quantization: Quantization, checkpoint: Callable[..., Path]
) -> None:
    check(checkpoint(family), torch.bfloat16, LEVELS[-1], CapturedStep, quantization)


@pytest.mark.parametrize("level", LEVELS)
def test_the_bundled_model(level: str) -> None:
    check(bundled_model_path(), torch.bfloat16, level, CapturedStep)
