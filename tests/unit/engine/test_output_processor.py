from __future__ import annotations

from pathlib import Path

import pytest

from novacron.engine.output_processor import OutputProcessor
from novacron.engine.tokenization import Tokenizer
from novacron.records.output import EngineOutput, RequestOutput
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.records.step import PositionLogprobs
from novacron.testing.tiny_models import EOS_TOKEN_ID, write_tiny_tokenizer

TEXT = "Paris is the capital of France. Hello, how are you today?"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return Tokenizer.load(folder)


def run(tokenizer: Tokenizer, step_size: int, **sampling: object) -> list[RequestOutput]:
    """The outputs of an engine whose steps bring so many tokens, up to the one that ends it all."""
    request = Request(
        request_id="r",
        prompt_token_ids=(5,),
        sampling=SamplingParams(seed=0, logprobs=0, **sampling),  # type: ignore[arg-type]
        arrival_time_s=0.0,
    )
    processor = OutputProcessor(tokenizer, request, 0)
    token_ids = (*tokenizer.encode(TEXT, add_special_tokens=False), EOS_TOKEN_ID)
    outputs: list[RequestOutput] = []
    for start in range(0, len(token_ids), step_size):
        new = token_ids[start : start + step_size]
        is_last = new[-1] == EOS_TOKEN_ID
        news = EngineOutput(
            "r",
            new_token_ids=new,
            logprobs=tuple(PositionLogprobs((token_id,), (-1.0,), 1) for token_id in new),
            finish_reason=FinishReason.STOP if is_last else None,
        )
        outputs.append(processor.process(news))
        if outputs[-1].finished:
            break
    return outputs


@pytest.mark.parametrize("step_size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    "sampling",
    [{}, {"stop": ("capital",)}, {"stop": ("Hello", "you t"), "include_stop_str_in_output": True}],
)
def test_how_many_tokens_a_step_brings_does_not_show(
    tokenizer: Tokenizer, step_size: int, sampling: dict[str, object]
) -> None:
    single = run(tokenizer, 1, **sampling)
    several = run(tokenizer, step_size, **sampling)
    assert "".join(one.text for one in several) == "".join(one.text for one in single)
    for name in ("token_ids", "logprobs"):
        assert sum((getattr(one, name) for one in several), ()) == sum(
            (getattr(one, name) for one in single), ()
        )
    for name in ("finish_reason", "stop_reason", "num_output_tokens"):
        assert getattr(several[-1], name) == getattr(single[-1], name)


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"stop": ("capital",)},
        {"stop": ("Hello", "you t"), "include_stop_str_in_output": True},
        {"stop": ("is",), "min_tokens": 6},
    ],
)
def test_a_stream_goes_on_behind_any_token_as_if_it_had_not_been_broken_off(
    tokenizer: Tokenizer, sampling: dict[str, object]
) -> None:
    whole = run(tokenizer, 1, **sampling)
    for cut in range(len(whole)):
        before, expected = whole[:cut], whole[cut:]
        request = Request(
            request_id="r",
            prompt_token_ids=(5,),
            sampling=SamplingParams(seed=0, logprobs=0, **sampling),  # type: ignore[arg-type]
            arrival_time_s=0.0,
            output_token_ids=tuple(token for output in before for token in output.token_ids),
        )
        processor = OutputProcessor(tokenizer, request, 0)
        for output in expected:
            news = EngineOutput(
                "r",
                new_token_ids=output.token_ids,
                logprobs=tuple(PositionLogprobs((t,), (-1.0,), 1) for t in output.token_ids),
                finish_reason=output.finish_reason if output.stop_reason is None else None,
            )
            assert processor.process(news) == output
