"""A folder that `novacron quantize` wrote computes what rounding at load does, bit for bit, and
means to others what it means to us."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from novacron.config.model import ModelConfig
from novacron.executor.blueprint import draw_blueprint
from novacron.executor.rewriting import rewrite
from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import read_hf_config
from novacron.models.loading import load_weights
from novacron.models.quantized_checkpoint import dense
from novacron.testing.quantized_models import words_of
from novacron.testing.reference import logits_in_chunks

EVERYTHING = (slice(None), slice(None))


def logits(folder: Path, **settings: object) -> tuple[Tensor, str]:
    config = ModelConfig(device="cpu", **settings)  # type: ignore[arg-type]
    blueprint = draw_blueprint(config, folder, 1)
    decoder = blueprint.build(blueprint.device)
    load_weights(decoder, blueprint.checkpoint, blueprint.family, lambda fraction: None)
    found = logits_in_chunks(decoder, list(range(5, 45)), [40], max_model_len=64)
    return found, decoder.precision_identity


@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize(
    ("family", "quantization", "layers"),
    [
        ("llama", "memory_critical", ()),
        ("llama", "int8", ("model.layers.0.*=int4", "*.1.*.o_proj.weight=bf16")),
        ("gemma2", "memory_critical", ()),
        ("gemma2", "int4", ()),
        ("phi3", "balanced", ()),
        ("qwen3_moe", "int4", ("*.experts.1.*=int8",)),
        ("llama", "fp8", ()),
        ("phi3", "fp8", ("*.0.*=int4", "*.1.*.o_proj.weight=bf16")),
    ],
)
def test_serves_as_it_was_rounded(
    family: str,
    quantization: str,
    layers: tuple[str, ...],
    kernels: str,
    checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    source = checkpoint(family)
    chosen = {"quantization": quantization, "quantization_layers": layers}
    rewrite(ModelConfig(device="cpu", **chosen), source, tmp_path / "out", shard_bytes=2**16)  # type: ignore[arg-type]
    for dtype in ("auto", "bfloat16"):
        at_load, identity = logits(source, kernels=kernels, dtype=dtype, **chosen)
        if dtype == "bfloat16" and Checkpoint(source).dtype != "bfloat16":
            continue  # rounded to bfloat16 first, which the folder was not
        served, served_identity = logits(tmp_path / "out", kernels=kernels, dtype=dtype)
        assert identity == served_identity != ""
        assert torch.equal(served, at_load)
        again, _ = logits(tmp_path / "out", kernels=kernels, dtype=dtype, **chosen)
        assert torch.equal(again, at_load)


@pytest.fixture(params=["memory_critical", "fp8"])
def out(request: pytest.FixtureRequest, checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """With two formats in it, or one; and with two kinds of whole numbers."""
    config = ModelConfig(
        device="cpu", quantization=request.param, quantization_layers=("*.0.*.up_proj.weight=fp8",)
    )
    rewrite(config, checkpoint("llama"), tmp_path / "out", shard_bytes=2**20)
    return tmp_path / "out"


def stored(folder: Path) -> dict[str, Tensor]:
    return {
        name: tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def test_words_hold_the_numbers_from_the_lowest_bits_on(out: Path) -> None:
    """Packed again by an account of the format that shares nothing with the one that wrote it."""
    tensors = stored(out)
    checkpoint = dense(Checkpoint(out), read_hf_config(out))
    packed = [name for name in tensors if name.endswith("weight_packed")]
    for name in packed:
        module = name.removesuffix(".weight_packed")
        rows, columns = tensors[f"{module}.weight_shape"].tolist()
        scales = tensors[f"{module}.weight_scale"].float()
        scales = scales.repeat_interleave(columns // scales.shape[1], 1)
        bits = 32 * tensors[name].shape[1] // columns
        weight = checkpoint.read(f"{module}.weight", EVERYTHING)
        numbers = torch.where(scales == 0, 0.0, weight / scales).round() + 2 ** (bits - 1)
        assert torch.equal(words_of(numbers, bits), tensors[name])
        assert weight.shape == (rows, columns)
    assert any(packed) or "fp8" in (out / "config.json").read_text()


def test_floats_are_those_of_torch(out: Path) -> None:
    tensors = stored(out)
    checkpoint = dense(Checkpoint(out), read_hf_config(out))
    floats = [name for name, tensor in tensors.items() if tensor.dtype == torch.float8_e4m3fn]
    assert floats
    for name in floats:
        scales = tensors[name.replace(".weight", ".weight_scale")]
        assert scales.shape == (len(tensors[name]), 1)
        expected = tensors[name].float() * scales
        assert torch.equal(checkpoint.read(name, EVERYTHING), expected)


def test_the_library_of_the_format_reads_the_same(out: Path) -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization")
    base = pytest.importorskip("compressed_tensors.compressors.base")
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    groups = quantization.QuantizationConfig.model_validate(config).config_groups.values()
    tensors = stored(out)
    checkpoint = dense(Checkpoint(out), read_hf_config(out))
    modules = [(module, scheme) for scheme in groups for module in scheme.targets]
    assert len(modules) == sum(name.endswith("weight_scale") for name in tensors)
    for module, scheme in modules:
        start = f"{module}."
        names = [name for name in tensors if name.startswith(start)]
        parts = {name.removeprefix(start): tensors[name] for name in names}
        form = scheme.format or config["format"]
        compressor = base.BaseCompressor.get_value_from_registry(form)
        expected = compressor.decompress(parts, scheme)["weight"]
        found = checkpoint.read(f"{module}.weight", EVERYTHING)
        assert torch.equal(found.to(expected.dtype), expected)


def test_gptq_goes_on_as_it_began(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The same files, whether it was ended or not, and others than those of the nearest numbers."""
    config = ModelConfig(device="cpu", quantization="int4")
    texts = [tuple(range(5, 90))]

    def end(fraction: float) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    def written(name: str, calibration: list[tuple[int, ...]] | None) -> dict[str, Tensor]:
        out = tmp_path / name
        rewrite(config, checkpoint("llama"), out, shard_bytes=2**14, calibration=calibration)
        return stored(out)

    whole, nearest = written("whole", texts), written("nearest", None)
    with pytest.raises(KeyboardInterrupt):
        rewrite(
            config, checkpoint("llama"), tmp_path / "ended",
            shard_bytes=2**14, calibration=texts, progress=end,
        )  # fmt: skip
    ended = written("ended", texts)
    assert all(torch.equal(ended[name], tensor) for name, tensor in whole.items())
    differs = [name for name in whole if not torch.equal(whole[name], nearest[name])]
    assert any("down_proj.weight_packed" in name for name in differs)
    assert not any("embed" in name or "lm_head" in name for name in differs)  # eight bits
