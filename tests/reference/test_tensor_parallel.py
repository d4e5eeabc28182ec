"""Ranks of the native kernels compute the bits that one computes, whatever the model: logits, and
the blocks of the KV cache that they share.

Ranks are threads here; tests/integration has them as processes.
"""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from novacron.kernels.linear import Quantization
from novacron.kernels.native.communicator import NativeCommunicator
from novacron.kernels.native.library import NativeContext, NativeUnavailable, native_levels
from novacron.kernels.native.table import native_kernels
from novacron.models.decoder import build_decoder
from novacron.models.loading import load_weights
from novacron.models.model_files import read_model_files
from novacron.models.registry import find_family
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.groups import ParallelGroup
from novacron.testing.native_ranks import on_native_ranks
from novacron.testing.reference import (
    load_decoder_with,
    logits_in_chunks,
    shape_of_kv_blocks,
)
from novacron.testing.tiny_models import FAMILIES, make_tiny_model

try:
    LEVEL = native_levels()[-1]
except NativeUnavailable:
    pytest.skip("no native kernels", allow_module_level=True)

FORMS = {
    "fp32": (torch.float32, None),
    "bf16": (torch.bfloat16, None),
    "int8": (torch.bfloat16, Quantization(8, 32)),
    "int4": (torch.float32, Quantization(4, 32)),
}
PROMPT = random.Random(0).choices(range(5, 380), k=41)
CHUNKS = (30, 1, 10)


def logits_of_ranks(
    folder: Path, dtype: torch.dtype, quantization: Quantization | None, ranks: int
) -> tuple[Tensor, Tensor]:
    """And the KV blocks."""
    files = read_model_files(folder)
    _, family = find_family(files.config)
    config = family.read_config(files.config)
    building = threading.Lock()  # the precision it is done in is the process's
    pairs = max(layer.moe.experts_per_token if layer.moe else 1 for layer in config.layers)

    kv_blocks = torch.zeros(shape_of_kv_blocks(config, dtype, len(PROMPT)), dtype=torch.uint8)

    def work(rank: int, communicator: NativeCommunicator, context: NativeContext) -> Tensor:
        group = ParallelGroup(rank, ranks)
        with building:
            decoder = build_decoder(
                config,
                group,
                communicator,
                native_kernels(context),
                precision=WeightPrecision.uniform(quantization),
                dtype=dtype,
                device=torch.device("cpu"),
            )
        load_weights(decoder, files.open_weights(), family, lambda fraction: None)
        return logits_in_chunks(
            decoder, PROMPT, CHUNKS, max_model_len=64, group=group, kv_blocks=kv_blocks
        )

    logits = on_native_ranks(
        ranks,
        LEVEL,
        work,
        max_rows=len(PROMPT) * pairs,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        dtype=dtype,
    )[0]
    return logits, kv_blocks


def logits_of_one(
    folder: Path, dtype: torch.dtype, quantization: Quantization | None
) -> tuple[Tensor, Tensor]:
    kernels = native_kernels(NativeContext(1, LEVEL))
    whole = load_decoder_with(kernels, folder, dtype, quantization=quantization)
    shape = shape_of_kv_blocks(whole.config, dtype, len(PROMPT))
    kv_blocks = torch.zeros(shape, dtype=torch.uint8)
    logits = logits_in_chunks(whole, PROMPT, CHUNKS, max_model_len=64, kv_blocks=kv_blocks)
    return logits, kv_blocks


def equal(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> bool:
    assert expected[1].any()
    return all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_ranks_have_the_bits_of_one(family: str, form: str, tmp_path: Path) -> None:
    overrides = {"vocab_size": 383}
    if family == "qwen2_moe":
        overrides["shared_expert_intermediate_size"] = 128
    if "moe" in family:
        overrides["moe_intermediate_size"] = 128
    folder = make_tiny_model(family, tmp_path, hidden_size=128, intermediate_size=256, **overrides)
    dtype, quantization = FORMS[form]
    expected = logits_of_one(folder, dtype, quantization)
    for ranks in (2, 4):
        assert equal(logits_of_ranks(folder, dtype, quantization, ranks), expected)


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 1), (4, 2), (12, 4), (8, 8)])
def test_any_numbers_of_heads_are_shared_out(
    num_heads: int, num_kv_heads: int, tmp_path: Path
) -> None:
    heads = {"num_attention_heads": num_heads, "num_key_value_heads": num_kv_heads}
    folder = make_tiny_model("llama", tmp_path, hidden_size=16 * num_heads, **heads)
    expected = logits_of_one(folder, torch.float32, None)
    for ranks in (2, 4):
        assert equal(logits_of_ranks(folder, torch.float32, None, ranks), expected)
