"""Requests that cannot be computed are refused with the reason; the others get seed and limit."""

import random

import msgspec
import pytest

from novacron.engine.admission import admit
from novacron.errors import Forbidden, InvalidRequest, PromptTooLong
from novacron.records.output import ModelSpec
from novacron.records.request import Request, SamplingParams

SPEC = ModelSpec(
    name="tiny", model_version="0", architecture="llama", vocab_size=100, hidden_size=8,
    max_model_len=16, eos_token_ids=(1,), dtype="float32", device="cpu", num_parameters=1,
    weight_bytes=4, num_blocks=4, block_size=16, kv_cache_bytes=64,
)  # fmt: skip


def make_request(num_tokens: int, **fields: object) -> Request:
    sampling = fields.pop("sampling", SamplingParams())
    return Request(
        request_id="r",
        prompt_token_ids=tuple(range(num_tokens)),
        sampling=sampling,  # type: ignore[arg-type]
        arrival_time_s=0.0,
        **fields,  # type: ignore[arg-type]
    )


def seeds() -> random.Random:
    return random.Random(7)


def test_missing_limit_becomes_what_the_context_holds() -> None:
    admitted = admit(make_request(10), SPEC, seeds())
    assert admitted.sampling.max_tokens == 6


def test_seeds_are_drawn_only_where_none_is_given() -> None:
    given = make_request(3, sampling=SamplingParams(seed=5))
    assert admit(given, SPEC, seeds()).sampling.seed == 5
    drawn = [admit(make_request(3), SPEC, source).sampling.seed for source in (seeds(), seeds())]
    assert drawn[0] == drawn[1] is not None


@pytest.mark.parametrize(
    ("num_tokens", "max_tokens", "numbers"),
    [(16, None, ("16",)), (20, None, ("20", "16")), (10, 7, ("10", "7", "16"))],
)
def test_what_does_not_fit_is_refused_with_the_numbers(
    num_tokens: int, max_tokens: int | None, numbers: tuple[str, ...]
) -> None:
    request = make_request(num_tokens, sampling=SamplingParams(max_tokens=max_tokens))
    with pytest.raises(PromptTooLong) as refusal:
        admit(request, SPEC, seeds())
    assert all(number in str(refusal.value) for number in numbers)


def test_a_full_context_can_still_be_embedded() -> None:
    assert admit(make_request(16, pooling="mean"), SPEC, seeds()).sampling.max_tokens == 1
    with pytest.raises(PromptTooLong):
        admit(make_request(17, pooling="mean"), SPEC, seeds())


@pytest.mark.parametrize("token_ids", [(), (1, 100), (-1,)])
def test_prompts_outside_the_vocabulary_are_refused(token_ids: tuple[int, ...]) -> None:
    request = Request(
        request_id="r", prompt_token_ids=token_ids, sampling=SamplingParams(), arrival_time_s=0.0
    )
    with pytest.raises(InvalidRequest):
        admit(request, SPEC, seeds())


@pytest.mark.parametrize("region", ["", "us"])
def test_no_engine_takes_what_may_not_be_where_it_is(region: str) -> None:
    here = msgspec.structs.replace(SPEC, region=region)
    with pytest.raises(Forbidden, match=r"may be in eu, asia only"):
        admit(make_request(3, regions=("eu", "asia")), here, seeds())
    admit(make_request(3), here, seeds())
    admit(make_request(3, regions=("us",)), msgspec.structs.replace(SPEC, region="us"), seeds())
