"""What documents are scored by: transformers' logits, and what the same engine would serve."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from novacron import LLM, SamplingParams
from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig
from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.executor import teacher_forcing
from novacron.executor.teacher_forcing import TeacherForcing, load_teacher
from novacron.quality.document import Document
from novacron.testing.tiny_models import VOCAB_SIZE

LENGTHS = (2, 90, 17, 64, 33, 5, 128)


def make_documents() -> list[Document]:
    rng = random.Random(3)
    return [
        Document(tuple(rng.choices(range(3, VOCAB_SIZE), k=length)), rng.randint(1, length - 1))
        for length in LENGTHS
    ]


DOCUMENTS = make_documents()


def load(folder: Path, *, cache: CacheConfig | None = None, **model: Any) -> TeacherForcing:
    config = EngineConfig(
        model=ModelConfig(device="cpu", num_threads=1, **model), cache=cache or CacheConfig()
    )
    return load_teacher(config, folder, longest=max(LENGTHS))[1]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_logits_are_those_of_transformers(family: str, checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(family)
    teacher = load(folder, dtype="float32")
    oracle = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for document, hidden in zip(DOCUMENTS, teacher.hidden(DOCUMENTS), strict=True):
        with torch.inference_mode():
            everything = oracle(torch.tensor([document.token_ids])).logits[0]
        expected = everything[document.first_scored - 1 : -1]
        torch.testing.assert_close(teacher.logits(hidden), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("kv_cache_dtype", ["auto", "int8"])
def test_a_served_prompt_gets_the_same_probabilities(
    kernels: Any, kv_cache_dtype: Any, checkpoint: Callable[..., Path]
) -> None:
    folder = checkpoint("llama")
    teacher = load(folder, cache=CacheConfig(kv_cache_dtype=kv_cache_dtype), kernels=kernels)
    llm = LLM(
        str(folder), kernels=kernels, kv_cache_dtype=kv_cache_dtype, num_threads=1, device="cpu"
    )
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=0)
    for document, hidden in zip(DOCUMENTS, teacher.hidden(DOCUMENTS), strict=True):
        [served] = llm.generate(list(document.token_ids), sampling)
        logprobs = served.prompt_logprobs[document.first_scored - 1 :]  # position 0 has none
        tokens = torch.tensor(document.token_ids[document.first_scored :])
        nll = F.cross_entropy(teacher.logits(hidden), tokens, reduction="none")
        expected = [-one.chosen.logprob for one in logprobs if one is not None]
        assert nll.tolist() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("kernels", "kv_cache_dtype", "tolerance"),
    # torch adds in an order that depends on the rows; a rounding to int8 would then fall otherwise
    [("native", "int8", 0.0), ("native", "auto", 0.0), ("torch", "auto", 1e-5)],
)
def test_how_documents_are_laid_out_changes_nothing(
    kernels: Any,
    kv_cache_dtype: Any,
    tolerance: float,
    checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = checkpoint("llama")
    cache = CacheConfig(kv_cache_dtype=kv_cache_dtype)
    expected = list(load(folder, cache=cache, kernels=kernels).hidden(DOCUMENTS))
    monkeypatch.setattr(teacher_forcing, "_MAX_DOCUMENTS", 3)
    config = EngineConfig(
        model=ModelConfig(device="cpu", num_threads=1, kernels=kernels), cache=cache
    )
    blueprint, whole = load_teacher(config, folder, longest=max(LENGTHS))
    teacher = TeacherForcing(blueprint, whole.decoder, cache, longest=max(LENGTHS), max_tokens=48)
    for _ in range(2):  # nothing is left behind by the first time
        found = list(teacher.hidden(DOCUMENTS))
        assert [len(one) for one in found] == [one.num_scored for one in DOCUMENTS]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kernels", ["native", "torch"])
def test_keys_and_values_are_read_in_the_precision_of_the_cache(
    kernels: Any, checkpoint: Callable[..., Path]
) -> None:
    """In one pass, too, where what is stored was computed a moment before."""
    folder = checkpoint("llama")
    assert sum(LENGTHS) < teacher_forcing._MAX_TOKENS

    def hidden(kv_cache_dtype: Any) -> torch.Tensor:
        cache = CacheConfig(kv_cache_dtype=kv_cache_dtype)
        teacher = load(folder, cache=cache, dtype="float32", kernels=kernels)
        assert teacher.kv_precision == kv_cache_dtype
        return torch.cat(list(teacher.hidden(DOCUMENTS)))

    exact = hidden("float32")
    errors = {kind: (hidden(kind) - exact).norm() / exact.norm() for kind in ("int8", "int4")}
    assert 1e-4 < errors["int8"] < 0.05
    assert 3 * errors["int8"] < errors["int4"] < 0.5


def test_a_document_that_is_longer_than_the_context_is_refused(
    checkpoint: Callable[..., Path],
) -> None:
    config = EngineConfig(model=ModelConfig(device="cpu", num_threads=1))
    with pytest.raises(ConfigError, match=r"513 tokens.*512.*--window"):
        load_teacher(config, checkpoint("llama"), longest=513)
