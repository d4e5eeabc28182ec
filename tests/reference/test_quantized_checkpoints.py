"""Models in the formats of quantised weights, beside the dense weights that they mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from novacron.config.model import ModelConfig
from novacron.errors import ModelLoadError
from novacron.executor.blueprint import draw_blueprint
from novacron.kernels.choice import choose_kernels
from novacron.kernels.linear import FLOAT8
from novacron.kernels.table import TORCH_KERNELS
from novacron.testing.quantized_models import FORMATS, quantize_folder
from novacron.testing.reference import Engine, Judge, load_decoder_with, logits_in_chunks

PROMPTS = [[5, 90, 17, 301, 44], [200, 7, 7, 63]]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_tokens_as_of_dense_weights(
    kind: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    packed, meant = tmp_path / "packed", tmp_path / "meant"
    quantize_folder(checkpoint("llama"), kind, packed, meant)
    engine = Engine(packed, torch.device("cpu"))
    tokens = [generation.token_ids for generation in engine.greedy(PROMPTS, 24)]
    judge = Judge(meant)
    assert tokens == [judge.greedy(prompt, 24) for prompt in PROMPTS]


# Without these a matrix is whole: equal groups are meant, or nothing we use.
OPTIONAL = ("g_idx", "input_scale", "weight_format")
DAMAGE: dict[str, Callable[[Tensor], Tensor | None]] = {
    "missing": lambda part: None,
    "cut": lambda part: part[:-1].clone() if part.dim() else torch.ones(2),
    "of another type": lambda part: torch.ones(part.shape, dtype=torch.int16),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_part_is_an_error_that_names_its_module(
    kind: str, damage: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    packed, meant = tmp_path / "packed", tmp_path / "meant"
    quantize_folder(checkpoint("llama"), kind, packed, meant)
    module = "model.layers.1.mlp.down_proj"
    tensors = load_file(packed / "model.safetensors")
    parts = [name for name in tensors if name.startswith(module) and not name.endswith(OPTIONAL)]
    assert len(parts) > 1
    for name in parts:
        damaged = DAMAGE[damage](tensors[name])
        rest = {other: tensor for other, tensor in tensors.items() if other != name}
        changed = rest if damaged is None else {**rest, name: damaged}
        save_file(changed, packed / "model.safetensors")
        with pytest.raises(ModelLoadError, match=re.escape(module)):
            load_decoder_with(TORCH_KERNELS, packed, torch.float32)


def test_packed_tensors_that_hold_several_projections(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Phi-3 has queries, keys and values in one matrix; Mixtral has experts."""
    for family in ("phi3", "mixtral"):
        packed, meant = tmp_path / family / "packed", tmp_path / family / "meant"
        quantize_folder(checkpoint(family), "compressed_int4_asymmetric", packed, meant)
        tokens = [
            [generation.token_ids for generation in Engine(folder, torch.device("cpu")).greedy(
                PROMPTS, 16
            )]
            for folder in (packed, meant)
        ]  # fmt: skip
        assert tokens[0] == tokens[1]


@pytest.mark.parametrize(
    ("quantization", "said"), [("none", "are held in float32"), ("int8", "are rounded again, to")]
)
def test_the_log_says_in_what_the_weights_are_held(
    quantization: Literal["none", "int8"],
    said: str,
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    quantize_folder(checkpoint("llama"), "fp8_tiles", tmp_path / "packed", tmp_path / "meant")
    with caplog.at_level("INFO"):
        draw_blueprint(ModelConfig(device="cpu", quantization=quantization), tmp_path / "packed", 1)
    assert said in caplog.text


@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize("kind", ["fp8_rows", "fp8_whole", "compressed_fp8_rows"])
def test_fp8_is_computed_with_as_it_is(
    kind: str, kernels: Literal["auto", "torch"], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """In float32, products with the stored numbers are those with the dense weights they mean."""
    packed, meant = tmp_path / "packed", tmp_path / "meant"
    quantize_folder(checkpoint("llama"), kind, packed, meant)
    table = choose_kernels(kernels, torch.device("cpu"), torch.float32, 1)
    found, expected = (
        logits_in_chunks(
            load_decoder_with(table, folder, torch.float32, quantization=form),
            list(range(5, 45)), [40], max_model_len=64,
        )
        for folder, form in ((packed, FLOAT8), (meant, None))
    )  # fmt: skip
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_memory_is_planned_for_what_is_held(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    packed, meant = tmp_path / "packed", tmp_path / "meant"
    quantize_folder(checkpoint("llama"), "compressed_int4", packed, meant)
    for model in (ModelConfig(device="cpu"), ModelConfig(device="cpu", quantization="int8")):
        shapes = [draw_blueprint(model, folder, 1).shape() for folder in (packed, meant)]
        assert shapes[0].weight_bytes == shapes[1].weight_bytes
        assert shapes[0].kv_precision == shapes[1].kv_precision
