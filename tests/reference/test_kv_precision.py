"""The bundled model with a KV cache of each precision: it still finds what it read, and gives the
same tokens however they are computed."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from novacron import LLM, SamplingParams
from novacron.demo.examples import is_correct
from novacron.demo.tasks import held_out_examples
from novacron.records.output import RequestOutput

NUM_EXAMPLES = 16
TASK = "retrieval_256"
GREEDY = SamplingParams(temperature=0.0, max_tokens=24)
EXAMPLES = held_out_examples(TASK, NUM_EXAMPLES, seed=5)
CHATS = [[message._asdict() for message in example.messages] for example in EXAMPLES]


def answers(llm: LLM) -> list[RequestOutput]:
    return llm.chat(CHATS, GREEDY)


def num_right(outputs: list[RequestOutput]) -> int:
    return sum(is_correct(one, out.text) for one, out in zip(EXAMPLES, outputs, strict=True))


def load(**settings: Any) -> LLM:
    return LLM(num_threads=1, kv_cache_memory=48 * 2**20, max_num_seqs=NUM_EXAMPLES, **settings)


@cache
def answers_in_the_precision_of_the_model() -> tuple[RequestOutput, ...]:
    return tuple(answers(load()))


@pytest.mark.parametrize("kernels", ["native", "torch"])
@pytest.mark.parametrize("kv_cache_dtype", ["int8", "fp8", "int8/int4", "int4"])
def test_retrieval_hardly_suffers(kv_cache_dtype: str, kernels: str) -> None:
    best = num_right(list(answers_in_the_precision_of_the_model()))
    found = num_right(answers(load(kv_cache_dtype=kv_cache_dtype, kernels=kernels)))
    assert best >= 0.75 * NUM_EXAMPLES
    assert found >= best - (1 if kv_cache_dtype == "int8" else 2)


@pytest.mark.parametrize(
    "kv_cache_dtype", ["float16", "int8", "fp8", "int4", "int8/int4", "bf16/int8"]
)
def test_chunks_and_cached_prefixes_change_no_token(kv_cache_dtype: str) -> None:
    whole = load(kv_cache_dtype=kv_cache_dtype, enable_prefix_caching=False)
    chunked = load(kv_cache_dtype=kv_cache_dtype, max_num_batched_tokens=48)
    expected = [out.token_ids for out in answers(whole)]
    assert [out.token_ids for out in answers(chunked)] == expected
    again = answers(chunked)
    assert [out.token_ids for out in again] == expected
    assert all(out.num_cached_tokens > 200 for out in again)


def test_a_format_that_rounds_nothing_changes_no_token() -> None:
    """Keys and values that the model computes in bfloat16 fit into float32 as they are."""
    plain = load(dtype="bfloat16", kv_cache_dtype="bf16/bf16")
    wide = load(dtype="bfloat16", kv_cache_dtype="bf16/fp32")
    expected = [out.token_ids for out in answers(plain)]
    assert [out.token_ids for out in answers(wide)] == expected


def test_smaller_numbers_make_room_for_more_tokens() -> None:
    blocks = {
        dtype: LLM(
            dtype="bfloat16", kv_cache_dtype=dtype, kv_cache_memory=12 * 2**20
        ).spec.num_blocks
        for dtype in ("bf16", "int8", "int4", "int8/int4", "int4/int8")
    }
    assert blocks["int8"] == pytest.approx(blocks["bf16"] * 2048 / 1088, rel=0.01)
    assert blocks["int4"] == pytest.approx(blocks["bf16"] * 2048 / 576, rel=0.01)
    assert blocks["int8/int4"] == pytest.approx(blocks["bf16"] * 2048 / (544 + 288), rel=0.01)
    assert blocks["int4/int8"] == blocks["int8/int4"]


def test_blocks_of_another_precision_or_layout_have_another_identity() -> None:
    specs = [
        load(**settings).spec
        for settings in (
            {},
            {"kv_cache_dtype": "int8"},
            {"kv_cache_dtype": "int8", "kernels": "torch"},
            {"kv_cache_dtype": "int8", "kv_cache_dtype_layers": ("0=bf16",)},
            {"kv_cache_dtype": "int8", "dtype": "float32"},
            {"kv_cache_dtype": "int8/int4"},
            {"kv_cache_dtype": "int4/int8"},
            {"kv_cache_dtype": "int8", "kv_cache_dtype_layers": ("0=bf16/int8",)},
        )
    ]
    assert len({spec.kv_identity for spec in specs}) == len(specs)
    assert specs[3].kv_precision == "1 x bfloat16, 5 x int8"
