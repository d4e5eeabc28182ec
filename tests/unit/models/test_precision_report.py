from __future__ import annotations

from pathlib import Path

import pytest
import torch

from novacron.kernels.table import TORCH_KERNELS
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.model_files import read_model_files
from novacron.models.precision_report import Part, report_precision
from novacron.models.registry import find_family
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import SINGLE
from novacron.quantization.precision_map import PrecisionMap
from novacron.testing.tiny_models import make_tiny_model


def report(folder: Path, base: str, *entries: str) -> tuple[dict[str, Part], Decoder]:
    files = read_model_files(folder)
    _, family = find_family(files.config)
    precision = WeightPrecision(PrecisionMap.parse(base, entries))
    decoder = build_decoder(
        family.read_config(files.config),
        SINGLE,
        LocalCommunicator(),
        TORCH_KERNELS,
        precision=precision,
        dtype=torch.bfloat16,
        device=torch.device("meta"),
    )
    parts = report_precision(decoder, precision, "bf16")
    assert sum(part.num_values for part in parts) == decoder.num_parameters
    return {part.name: part for part in parts}, decoder


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "qwen3_moe", "phi3"])
@pytest.mark.parametrize("base", ["none", "int4", "memory_critical", "quality_critical"])
def test_parts_are_all_there_is(family: str, base: str, tmp_path: Path) -> None:
    parts, decoder = report(make_tiny_model(family, tmp_path), base)
    assert sum(part.num_bytes for part in parts.values()) == decoder.weight_bytes
    assert ("router" in parts) == (family == "qwen3_moe")
    assert ("output head" in parts) != decoder.config.tie_embeddings


def test_what_differs_has_a_reason(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    parts, _ = report(folder, "balanced", "*.0.*.v_proj.weight=bf16")
    qkv = parts["attention qkv"]
    assert qkv.wanted == ("int8", "bf16")
    assert qkv.held in (("int8", "bf16"), ("bf16", "int8"))
    assert qkv.notes == (
        "q_proj, k_proj, v_proj are one product: all have the finest level asked for",
    )
    assert parts["ffn down"].notes == ()
    assert parts["attention out"].notes == (
        "what computes here takes bf16, which holds every stored value",
    )


def test_a_tied_embedding_says_that_it_is_the_output(tmp_path: Path) -> None:
    parts, _ = report(make_tiny_model("gemma2", tmp_path), "memory_critical")
    assert parts["embedding"].held == ("bf16",)
    assert "the output head, too, which asks for fp16" in parts["embedding"].notes[0]
