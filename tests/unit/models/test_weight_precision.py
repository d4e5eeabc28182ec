from __future__ import annotations

from pathlib import Path

import pytest
import torch

from novacron.kernels.linear import Quantization
from novacron.kernels.table import TORCH_KERNELS
from novacron.models.decoder import Decoder, build_decoder
from novacron.models.model_files import read_model_files
from novacron.models.registry import find_family
from novacron.models.weight_precision import WeightPrecision
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.groups import SINGLE
from novacron.quantization.precision_map import PrecisionMap
from novacron.testing.tiny_models import make_tiny_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make_tiny_model(name, folder / name) for name in ("llama", "gemma2", "qwen3_moe")}


def decoder_of(folder: Path, base: str, *entries: str, group_size: int = 32) -> Decoder:
    files = read_model_files(folder)
    _, family = find_family(files.config)
    return build_decoder(
        family.read_config(files.config),
        SINGLE,
        LocalCommunicator(),
        TORCH_KERNELS,
        precision=WeightPrecision(PrecisionMap.parse(base, entries), group_size),
        dtype=torch.bfloat16,
        device=torch.device("meta"),
    )


def forms(decoder: Decoder) -> dict[str, Quantization | None]:
    return {name: matrix.quantization for matrix in decoder.matrices for name in matrix.names}


INT8, INT4 = Quantization(8, 32), Quantization(4, 32)


def test_each_matrix_has_the_form_of_its_component(folders: dict[str, Path]) -> None:
    found = forms(decoder_of(folders["llama"], "memory_critical"))
    layer = "model.layers.1"
    assert found["model.embed_tokens.weight"] == INT8
    assert found[f"{layer}.self_attn.k_proj.weight"] == INT4
    assert found[f"{layer}.self_attn.o_proj.weight"] == INT8
    assert found[f"{layer}.mlp.down_proj.weight"] == INT4
    assert found["lm_head.weight"] is None
    assert decoder_of(folders["llama"], "memory_critical").precision == (
        "memory_critical: int4 in groups of 32, int8 in groups of 32, some bfloat16"
    )


def test_a_tied_embedding_has_the_form_of_its_finer_use(folders: dict[str, Path]) -> None:
    found = forms(decoder_of(folders["gemma2"], "memory_critical"))
    assert found["model.embed_tokens.weight"] is None
    assert "lm_head.weight" not in found


def test_experts_are_rounded_and_routers_are_not(folders: dict[str, Path]) -> None:
    found = forms(decoder_of(folders["qwen3_moe"], "int4", "*=int8"))
    assert found["model.layers.0.mlp.experts.1.up_proj.weight"] == INT8
    assert found["model.layers.0.mlp.gate.weight"] is None


def test_matrices_that_are_multiplied_as_one_have_the_finest_form(folders: dict[str, Path]) -> None:
    found = forms(decoder_of(folders["llama"], "int4", "*.0.*.v_proj.weight=int8"))
    for name, form in found.items():
        is_finer = "layers.0.self_attn.q" in name or ".0.self_attn.k" in name
        is_finer |= ".0.self_attn.v" in name or name in (
            "model.embed_tokens.weight",
            "lm_head.weight",
        )
        assert form == (INT8 if is_finer else INT4)


def test_wide_levels_are_those_that_compute(folders: dict[str, Path]) -> None:
    for level in ("none", "fp32", "fp16", "bf16", "quality_critical"):
        decoder = decoder_of(folders["llama"], level)
        assert set(forms(decoder).values()) == {None}
        assert (decoder.precision, decoder.precision_identity) == ("none", "")


def test_every_difference_shows_in_the_identity(folders: dict[str, Path]) -> None:
    choices = [
        ("none",), ("int8",), ("int4",), ("balanced",), ("memory_critical",),
        ("int8", "*.0.*=int4"), ("int8", "*.1.*=int4"), ("int8", "*.0.*=bf16"),
        ("int8", "*.0.*.down_proj*=int4"), ("int8", "*.0.*.o_proj*=int4"),
    ]  # fmt: skip
    decoders = [decoder_of(folders["llama"], *choice) for choice in choices]
    decoders.append(decoder_of(folders["llama"], "int8", group_size=64))
    assert len({decoder.precision_identity for decoder in decoders}) == len(decoders)
    same = [("int8",), ("fp32", "*=int8"), ("int4", "*=int4", "*=int8")]
    assert len({decoder_of(folders["llama"], *one).precision_identity for one in same}) == 1


def test_bytes_follow_the_real_precision_of_each_matrix(folders: dict[str, Path]) -> None:
    decoder = decoder_of(folders["llama"], "memory_critical")
    norms = sum(p.nbytes for name, p in decoder.named_parameters() if "matrix" not in name)
    sizes = {None: 2.0, INT8: 34 / 32, INT4: 18 / 32}

    def size(shape: tuple[int, int], form: Quantization | None) -> float:
        padded = shape[1] if form is None else -(-shape[1] // 32) * 32
        return shape[0] * padded * sizes[form]

    matrices = [size(matrix.shape, matrix.quantization) for matrix in decoder.matrices]
    assert decoder.weight_bytes == norms + sum(matrices)
