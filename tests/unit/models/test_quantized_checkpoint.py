from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import HFConfig, read_hf_config
from novacron.models.quantized_checkpoint import dense
from novacron.testing.quantized_models import FORMATS, quantize_folder

Write = Callable[..., Path]


@pytest.fixture
def folders(
    tensors: dict[str, Tensor], write_checkpoint: Write, tmp_path: Path
) -> Callable[[str], tuple[Path, Path]]:
    """Makes the folders of a Llama in a format, and of what it means."""

    def make(kind: str) -> tuple[Path, Path]:
        whole = write_checkpoint(tensors)
        packed, meant = tmp_path / "packed", tmp_path / "meant"
        quantize_folder(whole, kind, packed, meant)
        return packed, meant

    return make


def open_dense(folder: Path) -> Checkpoint:
    return dense(Checkpoint(folder), read_hf_config(folder))


def test_an_unquantised_checkpoint_is_itself(
    tensors: dict[str, Tensor], write_checkpoint: Write
) -> None:
    folder = write_checkpoint(tensors)
    checkpoint = Checkpoint(folder)
    assert dense(checkpoint, read_hf_config(folder)) is checkpoint


@pytest.mark.parametrize("method", ["gguf", "quanto", None])
def test_other_methods_are_refused_with_those_that_work(method: str | None, folders: Any) -> None:
    folder, _ = folders("fp8_rows")
    config = HFConfig({"quantization_config": {"quant_method": method}}, "config.json")
    with pytest.raises(ModelLoadError) as caught:
        dense(Checkpoint(folder), config)
    assert f"the method '{method or 'unknown'}', which is not supported" in str(caught.value)
    for form in FORMATS.values():
        assert form.config["quant_method"] in str(caught.value)


def test_packed_numbers_without_a_quantization_config_are_refused(folders: Any) -> None:
    """Their bare values fit into the model, and would make it talk nonsense."""
    folder, _ = folders("fp8_rows")
    with pytest.raises(ModelLoadError, match="stored as float8_e4m3fn, and neither"):
        dense(Checkpoint(folder), HFConfig({}, "config.json"))


def test_scales_of_activations_and_of_the_cache_are_not_shown(folders: Any) -> None:
    folder, meant = folders("fp8_rows")
    tensors = load_file(folder / "model.safetensors")
    for name in ("k_scale", "v_scale", "k_proj.input_scale", "v_proj.output_scale"):
        tensors[f"model.layers.0.self_attn.{name}"] = torch.tensor(1.0)
    save_file(tensors, folder / "model.safetensors")
    assert open_dense(folder).names == Checkpoint(meant).names


def test_what_is_not_packed_gives_the_precision(folders: Any) -> None:
    folder, _ = folders("fp8_rows")
    tensors = load_file(folder / "model.safetensors")
    tensors = {
        name: tensor.half() if tensor.dtype == torch.float32 else tensor
        for name, tensor in tensors.items()
    }
    save_file(tensors, folder / "model.safetensors")
    assert open_dense(folder).dtype == "float16"


def test_a_matrix_is_read_in_strips(folders: Any) -> None:
    """Of a few rows each, as the loader does, which begin and end in the middle of a tile."""
    folder, meant = folders("fp8_tiles")
    checkpoint, expected = open_dense(folder), load_file(meant / "model.safetensors")
    assert checkpoint.names == expected.keys()
    for name, tensor in expected.items():
        assert checkpoint.shape(name) == tuple(tensor.shape)
        others = (slice(None),) * (tensor.dim() - 1)
        strips = [
            checkpoint.read(name, (slice(start, min(start + 5, len(tensor))), *others))
            for start in range(0, len(tensor), 5)
        ]
        assert torch.equal(torch.cat(strips), tensor), name


def test_the_file_of_a_packed_matrix_is_that_of_its_first_part(folders: Any) -> None:
    folder, _ = folders("fp8_rows")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    shards = {"a.safetensors": {f"{name}.weight_scale": tensors.pop(f"{name}.weight_scale")}}
    shards["b.safetensors"] = tensors
    for file, content in shards.items():
        save_file(content, folder / file)
    index = {name: file for file, content in shards.items() for name in content}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert open_dense(folder).file_of(f"{name}.weight").name == "b.safetensors"
