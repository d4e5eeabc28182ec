"""Stages of a pipeline compute the bits that the whole model computes, whatever it is, also where
each of them is cut into slices.

Slices are threads here; tests/integration has them as processes.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from novacron.kernels.linear import Quantization
from novacron.kernels.native.communicator import NativeCommunicator
from novacron.kernels.native.library import NativeContext, NativeUnavailable, native_levels
from novacron.kernels.native.table import native_kernels
from novacron.kernels.table import Kernels
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.layer_costs import stages_of
from novacron.models.loading import load_weights
from novacron.models.model_files import read_model_files
from novacron.models.registry import find_family
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.communicator import Communicator, LocalCommunicator
from novacron.parallel.groups import SINGLE, ParallelGroup
from novacron.testing.native_ranks import on_native_ranks
from novacron.testing.reference import load_decoder_with, logits_in_chunks, logits_of_stages
from novacron.testing.tiny_models import FAMILIES, make_tiny_model

try:
    LEVEL = native_levels()[-1]
except NativeUnavailable:
    pytest.skip("no native kernels", allow_module_level=True)

FORMS = {"bf16": (torch.bfloat16, None), "int8": (torch.bfloat16, Quantization(8, 32))}
PROMPT = random.Random(0).choices(range(5, 380), k=41)
CHUNKS = (30, 1, 10)
_building = threading.Lock()  # the precision it is done in is the process's


def load_stages(
    folder: Path,
    form: str,
    count: int,
    kernels: Kernels,
    group: ParallelGroup = SINGLE,
    communicator: Communicator | None = None,
) -> Iterator[Decoder]:
    files = read_model_files(folder)
    _, family = find_family(files.config)
    config = family.read_config(files.config)
    dtype, quantization = FORMS[form]

    def build(device: str, stage: object = None) -> Decoder:
        with _building:
            return build_decoder(
                config,
                group,
                communicator or LocalCommunicator(),
                kernels,
                precision=WeightPrecision.uniform(quantization),
                stage=stage,  # type: ignore[arg-type]
                dtype=dtype,
                device=torch.device(device),
            )

    uncut = build("meta")
    names = {slot.name for slot in uncut.weight_slots()}
    loaded: list[str] = []
    for stage in stages_of(uncut, count):
        decoder = build("cpu", stage)
        loaded += [slot.name for slot in decoder.weight_slots()]
        load_weights(decoder, files.open_weights(), family, lambda fraction: None, elsewhere=names)
        yield decoder
    assert sorted(loaded) == sorted(names)


def make(family: str, tmp_path: Path) -> Path:
    overrides = {"vocab_size": 383}
    if family == "qwen2_moe":
        overrides["shared_expert_intermediate_size"] = 128
    if "moe" in family:
        overrides["moe_intermediate_size"] = 128
    return make_tiny_model(family, tmp_path, hidden_size=128, intermediate_size=256, **overrides)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_stages_have_the_bits_of_the_whole(family: str, form: str, tmp_path: Path) -> None:
    folder = make(family, tmp_path)
    kernels = native_kernels(NativeContext(1, LEVEL))
    dtype, quantization = FORMS[form]
    whole = load_decoder_with(kernels, folder, dtype, quantization=quantization)
    expected = logits_in_chunks(whole, PROMPT, CHUNKS, max_model_len=64)
    for count in (2, 3):
        stages = tuple(load_stages(folder, form, count, kernels))
        assert sum(stage.weight_bytes for stage in stages) == whole.weight_bytes
        found = logits_of_stages(stages, PROMPT, CHUNKS, max_model_len=64)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3_moe"])
def test_slices_of_stages_have_the_bits_of_the_whole(family: str, tmp_path: Path) -> None:
    folder = make(family, tmp_path)
    config = find_family(read_model_files(folder).config)[1].read_config(
        read_model_files(folder).config
    )
    pairs = max(layer.moe.experts_per_token if layer.moe else 1 for layer in config.layers)

    def work(rank: int, communicator: NativeCommunicator, context: NativeContext) -> Tensor:
        group = ParallelGroup(rank, 2)
        kernels = native_kernels(context)
        stages = tuple(load_stages(folder, "int8", 2, kernels, group, communicator))
        return logits_of_stages(stages, PROMPT, CHUNKS, max_model_len=64, group=group)

    found = on_native_ranks(
        2,
        LEVEL,
        work,
        max_rows=len(PROMPT) * pairs,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        dtype=torch.bfloat16,
    )[0]
    kernels = native_kernels(NativeContext(1, LEVEL))
    dtype, quantization = FORMS["int8"]
    whole = load_decoder_with(kernels, folder, dtype, quantization=quantization)
    assert torch.equal(found, logits_in_chunks(whole, PROMPT, CHUNKS, max_model_len=64))
