"""Models of random weights load in transformers and in NovaCron, and both agree about them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from novacron import LLM, SamplingParams
from novacron.bench.model_shapes import choose_shape
from novacron.bench.random_model import make_model
from novacron.testing.reference import Judge

PROMPT = list(range(300, 320))
NUM_TOKENS = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "random"
    shape = choose_shape("tiny", {"hidden_size": 128, "num_hidden_layers": 4, "vocab_size": 2048})
    make_model(path, shape, shard_bytes=500_000)
    return path


@pytest.mark.slow
def test_ours_and_transformers_continue_a_prompt_alike(folder: Path) -> None:
    llm = LLM(str(folder), dtype="float32", kv_cache_memory=8 * 2**20)
    sampling = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
    [output] = llm.generate([PROMPT], sampling)
    llm.close()
    assert list(output.token_ids) == Judge(folder).greedy(PROMPT, NUM_TOKENS)


@pytest.mark.slow
def test_logits_are_finite_and_greedy_output_is_no_loop(folder: Path) -> None:
    judge = Judge(folder)
    assert 0.5 < float(judge.logits(PROMPT).std()) < 2
    tokens = judge.greedy(PROMPT, NUM_TOKENS)
    assert len(set(tokens)) > NUM_TOKENS / 2


def test_transformers_reads_the_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 2048
    text = "na\u00efve Stra\u00dfe, 42 \U0001f642"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_bfloat16_rounds_as_torch_does(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shape = choose_shape("tiny", {})
    for dtype in ("bfloat16", "float32"):
        make_model(tmp_path / dtype, shape, dtype=dtype)  # type: ignore[arg-type]
    rounded, exact = (
        load_file(tmp_path / dtype / "model-00001-of-00001.safetensors")
        for dtype in ("bfloat16", "float32")
    )
    assert rounded.keys() == dict(shape.tensors()).keys()
    for name, tensor in exact.items():
        assert torch.equal(rounded[name], tensor.bfloat16())
    assert math.prod(rounded["lm_head.weight"].shape) == 512 * 64
