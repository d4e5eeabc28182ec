from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from novacron.errors import ModelLoadError, UnsupportedModel
from novacron.models import gguf_blocks
from novacron.models.gguf_checkpoint import GGUFCheckpoint
from novacron.models.gguf_model import GGUFModel
from novacron.models.model_files import read_model_files
from novacron.testing.gguf_models import Change, write_gguf
from novacron.testing.tiny_models import make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=1)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_reads_what_the_folder_has(family: str, tmp_path: Path) -> None:
    folder = make_tiny_model(family, tmp_path / "model", attention_bias=True)
    checkpoint = GGUFCheckpoint(GGUFModel(write_gguf(folder, tmp_path / "m.gguf")))
    expected = load_file(folder / "model.safetensors")
    assert checkpoint.names == expected.keys()
    for name, tensor in expected.items():
        whole = (slice(None),) * tensor.dim()
        assert checkpoint.shape(name) == tensor.shape
        assert torch.equal(checkpoint.read(name, whole), tensor)
        assert torch.equal(checkpoint.read(name, (slice(3, 12), *whole[1:])), tensor[3:12])
        if tensor.dim() == 2:
            part = checkpoint.read(name, (slice(5, 9), slice(16, 48)))
            assert torch.equal(part, tensor[5:9, 16:48])


@pytest.mark.parametrize("name", ["q_proj", "v_proj"])
def test_turns_only_the_rows_asked_for_into_numbers(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf", "Q8_0")
    num_blocks: list[int] = []
    q8_0 = gguf_blocks.FORMATS[8]

    def counted(blocks: torch.Tensor) -> torch.Tensor:
        num_blocks.append(len(blocks))
        return q8_0.dequantize(blocks)

    monkeypatch.setitem(gguf_blocks.FORMATS, 8, replace(q8_0, dequantize=counted))  # type: ignore[misc]
    checkpoint = GGUFCheckpoint(GGUFModel(file))
    checkpoint.read(f"model.layers.0.self_attn.{name}.weight", (slice(3, 7), slice(None)))
    assert num_blocks == [4 * 64 // 32]


@pytest.mark.parametrize(
    ("held_as", "dtype"),
    [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16"), ("Q4_0", "bfloat16")],
)
def test_the_precision_to_compute_in(
    held_as: str, dtype: str, folder: Path, tmp_path: Path
) -> None:
    file = GGUFModel(write_gguf(folder, tmp_path / "m.gguf", held_as))
    assert GGUFCheckpoint(file).dtype == dtype


def number(key: str, value: int) -> Change:
    return lambda writer: writer.add_uint32(key, value)


def experts(also: Change) -> Change:
    def change(writer: gguf.GGUFWriter) -> None:
        writer.add_expert_count(4)
        writer.add_expert_used_count(2)
        also(writer)

    return change


REFUSED: dict[str, tuple[Change, str]] = {
    "experts without their numbers": (
        number("llama.expert_count", 8),
        r"'llama\.expert_used_count' is missing",
    ),
    "experts weighed otherwise": (
        experts(lambda writer: writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)),
        r"'llama\.expert_gating_func' is 2",
    ),
    "experts whose shares do not add up": (
        experts(lambda writer: writer.add_expert_weights_norm(False)),
        "shares do not add up to one",
    ),
    "scaling": (
        lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE),
        "'longrope' is not supported; supported: none, linear, yarn",
    ),
    "divisors of another size": (
        lambda writer: writer.add_tensor("rope_freqs.weight", np.ones(5, np.float32)),
        r"'rope_freqs\.weight' has the shape \[5\], not \[4\]",
    ),
    "divisors that are none": (
        lambda writer: writer.add_tensor("rope_freqs.weight", np.zeros(4, np.float32)),
        "not positive",
    ),
    "a type": (
        lambda writer: writer.add_tensor(
            "extra", np.zeros((1, 66), np.uint8), raw_dtype=gguf.GGMLQuantizationType.IQ2_XXS
        ),
        "'extra' is of the type IQ2_XXS, which is not supported. Supported: F32, .*Q6_K",
    ),
}


@pytest.mark.parametrize(("also", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals(also: Change, reason: str, folder: Path, tmp_path: Path) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf", also=also)
    with pytest.raises(ModelLoadError, match=reason) as caught:
        read_model_files(file).open_weights()
    assert str(file) in str(caught.value)


def test_other_architectures_are_refused_by_name(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "gpt-oss")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModel, match=r"'gpt-oss' .* Supported: llama, qwen2, qwen3"):
        read_model_files(tmp_path / "m.gguf")


def test_a_missing_tensor_is_named(folder: Path, tmp_path: Path) -> None:
    checkpoint = GGUFCheckpoint(GGUFModel(write_gguf(folder, tmp_path / "m.gguf")))
    with pytest.raises(ModelLoadError, match=r"m\.gguf: .*'lm_tail\.weight'"):
        checkpoint.shape("lm_tail.weight")
