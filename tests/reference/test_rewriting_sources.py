"""What `novacron quantize` makes of GGUF files and of folders that are rounded already is what it
makes of the dense weights in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from novacron.cli.tokenizer_files import tokenizer_files
from novacron.config.model import ModelConfig
from novacron.engine.tokenization import Tokenizer
from novacron.executor.blueprint import draw_blueprint
from novacron.executor.rewriting import rewrite
from novacron.testing.gguf_models import dequantized_folder, write_gguf
from novacron.testing.quantized_models import quantize_folder
from novacron.testing.reference import Engine

SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
CHAT = [{"role": "user", "content": "What is 12 + 30?"}]


def written(source: Path, out: Path, quantization: str = "memory_critical") -> dict[str, Tensor]:
    model = ModelConfig(device="cpu", quantization=quantization)  # type: ignore[arg-type]
    texts = tokenizer_files(model, source)
    rewrite(model, source, out, shard_bytes=2**30, tokenizer_texts=texts)
    return load_file(out / "model-00001-of-00001.safetensors")


def assert_rounded_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name].to(tensor.dtype), tensor), name
        assert found[name].dtype == tensor.dtype or tensor.dtype.is_floating_point


@pytest.mark.parametrize("held_as", ["F32", "F16", "Q8_0", "Q4_K"])
def test_a_gguf_file(
    held_as: str, checkpoint: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint("llama", **SIZES)
    (tmp_path / "file").mkdir()
    file = write_gguf(folder, tmp_path / "file" / "model.gguf", held_as)
    dense = dequantized_folder(file, folder, tmp_path / "dense")
    found = written(file, tmp_path / "out")
    expected = written(dense, tmp_path / "expected")
    rounded = {name for name in expected if "weight_" in name}
    assert_rounded_alike(
        {name: found[name] for name in rounded}, {name: expected[name] for name in rounded}
    )
    assert found.keys() == expected.keys()
    kinds = {tensor.dtype for name, tensor in found.items() if name.endswith("lm_head.weight")}
    assert kinds == {{"F32": torch.float32, "F16": torch.float16}.get(held_as, torch.bfloat16)}
    assert all(found[name].dtype == torch.float32 for name in found if "norm" in name)
    assert ("rounded again" in caplog.text) == held_as.startswith("Q")
    before, after = Tokenizer.load(file), Tokenizer.load(tmp_path / "out")
    for tokenizer in (before, after):
        assert tokenizer.encode("12 + 30 <eos>") == before.encode("12 + 30 <eos>")
    assert after.apply_chat_template(CHAT) == before.apply_chat_template(CHAT)
    assert after.eos_token_ids == before.eos_token_ids
    if held_as == "F32":
        tokens = [
            Engine(out, torch.device("cpu")).greedy([[5, 90, 17]], 8)[0].token_ids
            for out in (tmp_path / "out", tmp_path / "expected")
        ]
        assert tokens[0] == tokens[1]


@pytest.mark.parametrize("kind", ["gptq", "awq", "fp8_tiles", "nf4", "llm_int8"])
def test_a_folder_that_is_rounded_already(
    kind: str, checkpoint: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    packed, meant = tmp_path / "packed", tmp_path / "meant"
    quantize_folder(checkpoint("llama"), kind, packed, meant)
    found = written(packed, tmp_path / "out")
    assert "are rounded again, to memory_critical" in caplog.text
    assert_rounded_alike(found, written(meant, tmp_path / "expected"))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    assert draw_blueprint(ModelConfig(device="cpu"), tmp_path / "out", 1).precision.rounds


@pytest.mark.parametrize(("first", "second"), [("int8", "balanced"), ("fp8", "fp8")])
def test_numbers_in_the_wanted_form_are_kept(
    first: str, second: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Dense weights, rounded again, would not always give the same."""
    once = written(checkpoint("llama"), tmp_path / "once", first)
    twice = written(tmp_path / "once", tmp_path / "twice", second)
    kept = [name for name in twice if ".mlp." in name]
    assert len(kept) >= 6
    assert all(torch.equal(twice[name], once[name]) for name in kept)
