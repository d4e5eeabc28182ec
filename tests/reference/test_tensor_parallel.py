"""Ranks of the native kernels compute the bits that one computes, whatever the model.

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
from novacron.testing.reference import load_decoder_with, logits_in_chunks
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
) -> Tensor:
    files = read_model_files(folder)
    _, family = find_family(files.config)
    config = family.read_config(files.config)
    building = threading.Lock()  # the precision it is done in is the process's
    pairs = max(layer.moe.experts_per_token if layer.moe else 1 for layer in config.layers)

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
        return logits_in_chunks(decoder, PROMPT, CHUNKS, max_model_len=64, group=group)

    return on_native_ranks(
        ranks,
        LEVEL,
        work,
        max_rows=len(PROMPT) * pairs,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        dtype=dtype,
    )[0]


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
    kernels = native_kernels(NativeContext(1, LEVEL))
    whole = load_decoder_with(kernels, folder, dtype, quantization=quantization)
    expected = logits_in_chunks(whole, PROMPT, CHUNKS, max_model_len=64)
    for ranks in (2, 4):
        assert torch.equal(logits_of_ranks(folder, dtype, quantization, ranks), expected)


def test_ranks_may_be_more_than_key_value_heads(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path, num_key_value_heads=1)
    kernels = native_kernels(NativeContext(1, LEVEL))
    whole = load_decoder_with(kernels, folder, torch.float32)
    expected = logits_in_chunks(whole, PROMPT, CHUNKS, max_model_len=64)
    assert torch.equal(logits_of_ranks(folder, torch.float32, None, 4), expected)
