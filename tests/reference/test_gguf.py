"""A GGUF file computes what the Hugging Face folder of the weights in it computes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from novacron.engine.llm import LLM
from novacron.engine.tokenization import Tokenizer
from novacron.models.gguf_blocks import FORMATS
from novacron.models.model_files import read_model_files
from novacron.models.registry import find_family
from novacron.records.request import SamplingParams
from novacron.testing.gguf_models import dequantized_folder, write_gguf
from novacron.testing.reference import Engine, Judge, KernelChoice
from novacron.testing.tiny_models import VOCAB_SIZE
from novacron.testing.tiny_tokenizers import sentencepiece_style

NUM_NEW = 48
SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "head_dim": 32,
}


def prompts() -> list[list[int]]:
    source = random.Random(0)
    return [source.choices(range(5, VOCAB_SIZE), k=length) for length in (3, 40, 17)]


def greedy(path: Path, device: torch.device, kernels: KernelChoice = "auto") -> list[list[int]]:
    generations = Engine(path, device, kernels=kernels).greedy(prompts(), NUM_NEW)
    return [generation.token_ids for generation in generations]


@pytest.mark.parametrize("held_as", [found.name for found in FORMATS.values()])
def test_every_format(
    held_as: str, checkpoint: Callable[..., Path], tmp_path: Path, device: torch.device
) -> None:
    folder = checkpoint("llama", **SIZES)
    file = write_gguf(folder, tmp_path / "model.gguf", held_as)
    expected = greedy(dequantized_folder(file, folder, tmp_path / "folder"), device)
    assert greedy(file, device) == expected


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"num_key_value_heads": 8, "head_dim": 8}),
        ("qwen2", {"tie_word_embeddings": False}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mixtral", {}),
        ("qwen2_moe", {"mlp_only_layers": []}),
        ("qwen3_moe", {}),
    ],
)
def test_every_family(
    family: str,
    changes: dict[str, Any],
    checkpoint: Callable[..., Path],
    judge: Callable[[Path], Judge],
    tmp_path: Path,
    device: torch.device,
) -> None:
    folder = checkpoint(family, **changes)
    file = write_gguf(folder, tmp_path / "model.gguf")
    expected = [judge(folder).greedy(prompt, NUM_NEW) for prompt in prompts()]
    assert greedy(file, device) == expected


@pytest.mark.parametrize("held_as", ["Q8_0", "Q4_K", "IQ4_XS"])
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_rounded_experts(
    family: str,
    held_as: str,
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    device: torch.device,
) -> None:
    sizes = SIZES | {"intermediate_size": 256, "moe_intermediate_size": 256}
    sizes |= {"shared_expert_intermediate_size": 256, "mlp_only_layers": []}
    folder = checkpoint(family, **sizes)
    file = write_gguf(folder, tmp_path / "model.gguf", held_as)
    expected = greedy(dequantized_folder(file, folder, tmp_path / "folder"), device)
    assert greedy(file, device) == expected


def test_a_model_in_several_files(
    checkpoint: Callable[..., Path], tmp_path: Path, device: torch.device
) -> None:
    folder = checkpoint("mixtral")
    whole = write_gguf(folder, tmp_path / "whole.gguf", "Q8_0")
    first = write_gguf(folder, tmp_path / "parts.gguf", "Q8_0", tensors_per_file=9)
    assert len(list(tmp_path.glob("parts-*"))) > 3
    assert greedy(first, device) == greedy(whole, device)
    assert Tokenizer.load(first).encode("The fox") == Tokenizer.load(whole).encode("The fox")


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe"])
def test_the_configuration_is_that_of_the_folder(
    family: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    changes = {"mlp_only_layers": []} if family == "qwen2_moe" else {}
    folder = checkpoint(family, **changes)
    read = [
        find_family(files.config)[1].read_config(files.config)
        for files in map(read_model_files, (folder, write_gguf(folder, tmp_path / "model.gguf")))
    ]
    assert read[0] == read[1]


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def divisors_of_llama3(writer: gguf.GGUFWriter) -> None:
    """As llama.cpp's converter computes them, for heads of 8 dimensions and the numbers above."""
    wavelengths = 2 * np.pi * 10000.0 ** (np.arange(0, 8, 2) / 8)
    smooth = (64 / wavelengths - 1.0) / (4.0 - 1.0)
    between = 1 / ((1 - smooth) / 8.0 + smooth)
    divisors = np.where(wavelengths < 16, 1.0, np.where(wavelengths > 64, 8.0, between))
    writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))


def linear(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(2.5)


def yarn(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(128)


@pytest.mark.parametrize(
    ("rope", "also"),
    [
        (LLAMA3, divisors_of_llama3),
        ({"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}, linear),
        (
            {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
            },
            yarn,
        ),
    ],
    ids=lambda value: value.get("rope_type") if isinstance(value, dict) else "",
)
def test_rope_scaling(
    rope: dict[str, Any],
    also: Callable[[gguf.GGUFWriter], None],
    checkpoint: Callable[..., Path],
    judge: Callable[[Path], Judge],
    tmp_path: Path,
    device: torch.device,
) -> None:
    folder = checkpoint("llama", rope_parameters=rope)
    file = write_gguf(folder, tmp_path / "model.gguf", also=also)
    expected = [judge(folder).greedy(prompt, NUM_NEW) for prompt in prompts()]
    plain = write_gguf(folder, tmp_path / "plain.gguf")
    assert greedy(file, device) == expected != greedy(plain, device)


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_texts_and_chats(
    quantization: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Everything from the one file: weights, rounded once more or not, tokenizer, template."""
    folder = checkpoint("llama")
    file = write_gguf(folder, tmp_path / "model.gguf")
    sampling = SamplingParams(temperature=0.0, max_tokens=24)
    texts = []
    for model in (folder, file):
        llm = LLM(str(model), quantization=quantization, kv_cache_memory=2**24)
        answers = llm.generate("The quick brown fox", sampling)
        answers += llm.chat([{"role": "user", "content": "Hello!"}], sampling)
        texts.append([answer.text for answer in answers])
        assert llm.spec.quantization.startswith(quantization)
        llm.close()
    assert texts[0] == texts[1] != ["", ""]


_OF_A_SAMPLE: dict[str, Any] = SIZES | {  # see tools/make_gguf_sample.py
    "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
_SMALL = _OF_A_SAMPLE | {"num_hidden_layers": 1, "tie_word_embeddings": True}
LIKE: dict[str, tuple[str, dict[str, Any]]] = {
    "q4_k_m": ("llama", _OF_A_SAMPLE),
    "q2_k": ("llama", _OF_A_SAMPLE),
    "mixtral_q8_0": (
        "mixtral", {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2},
    ),
}  # fmt: skip

SAMPLES = sorted((Path(__file__).parents[1] / "data" / "gguf").glob("*.gguf"))


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)
def test_what_llama_cpp_rounded_and_the_folder_that_it_means(
    file: Path, checkpoint: Callable[..., Path], tmp_path: Path, device: torch.device
) -> None:
    """The same greedy tokens as of safetensors with the weights that the gguf package reads."""
    vocab_size = sentencepiece_style().get_vocab_size()
    family, changes = LIKE.get(file.stem, ("llama", _SMALL | {"vocab_size": vocab_size}))
    like = checkpoint(family, **changes)
    folder = dequantized_folder(file, like, tmp_path / "folder")
    assert greedy(file, device) == greedy(folder, device) != greedy(like, device)


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)
def test_what_llama_cpp_rounded_and_answered(file: Path, device: torch.device) -> None:
    """Files and answers made by tools/make_gguf_sample.py."""
    answers = json.loads(file.with_suffix(".json").read_text())
    tokenizer = Tokenizer.load(file)
    for text, token_ids in answers["texts"].items():
        assert tokenizer.encode(text) == token_ids
    asked = [answer["prompt"] for answer in answers["greedy"]]
    expected = [answer["new"] for answer in answers["greedy"]]
    found = Engine(file, device).greedy(asked, len(expected[0]))
    assert [generation.token_ids for generation in found] == expected
