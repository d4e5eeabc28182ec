"""The ranges of SamplingParams, checked in one place for every way into the engine.

Called by engine clients before a request is queued; the gateway only parses. Ranges are vLLM's;
where vLLM has no limit and OpenAI has one, OpenAI's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from novacron.errors import InvalidRequest
from novacron.records.request import SamplingParams

MAX_LOGPROBS: Final = 20
MAX_STOP_STRINGS: Final = 32
MAX_STOP_STRING_CHARACTERS: Final = 1024
MAX_STOP_TOKEN_IDS: Final = 1024
MAX_LOGIT_BIAS: Final = 100.0
MAX_LOGIT_BIASES: Final = 1024

_MAX_COUNT: Final = 2**31 - 1
_MIN_SEED: Final = -(2**63)
_MAX_SEED: Final = 2**63 - 1


def validate_sampling(sampling: SamplingParams, *, vocab_size: int, max_model_len: int) -> None:
    """Raises InvalidRequest, naming the field, the value and what is allowed.

    Whether prompt and max_tokens fit into the context together is not decided here, since that
    takes the prompt; nor is whether a structured output can be compiled.
    """
    _check_types(sampling)
    _check_count("stop_token_ids", len(sampling.stop_token_ids), MAX_STOP_TOKEN_IDS)
    _check_count("logit_bias", len(sampling.logit_bias), MAX_LOGIT_BIASES)
    _check_lengths(sampling, max_model_len)
    _check_numbers(sampling)
    _check_stop(sampling.stop)
    _check_token_ids("stop_token_ids", sampling.stop_token_ids, vocab_size)
    _check_token_ids("logit_bias", sampling.logit_bias, vocab_size)
    for bias in sampling.logit_bias.values():
        _check_range("logit_bias", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)


def _check_count(name: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidRequest(
            f"{name} has {count} entries, but at most {most} are allowed.", param=name
        )


def _check_types(sampling: SamplingParams) -> None:
    """Python callers can put anything into a Struct; what came over HTTP is typed already."""
    try:
        msgspec.convert(msgspec.to_builtins(sampling), SamplingParams)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidRequest(f"The sampling parameters have a wrong type: {error}.") from error


def _check_lengths(sampling: SamplingParams, max_model_len: int) -> None:
    longest = max_model_len
    if sampling.max_tokens is not None:
        _check_range("max_tokens", sampling.max_tokens, 1, _MAX_COUNT)
        longest = min(sampling.max_tokens, max_model_len)
    if sampling.min_tokens > longest:
        raise InvalidRequest(
            f"min_tokens is {sampling.min_tokens}, which is more than max_tokens or the model's "
            f"context allow ({longest}). Lower min_tokens or raise max_tokens.",
            param="min_tokens",
        )
    _check_range("min_tokens", sampling.min_tokens, 0, longest)


def _check_numbers(sampling: SamplingParams) -> None:
    _check_range("temperature", sampling.temperature, 0.0, math.inf)
    _check_range("top_k", sampling.top_k, -1, _MAX_COUNT)
    _check_range("top_p", sampling.top_p, 0.0, 1.0, low_included=False)
    _check_range("min_p", sampling.min_p, 0.0, 1.0)
    _check_range(
        "repetition_penalty", sampling.repetition_penalty, 0.0, math.inf, low_included=False
    )
    _check_range("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0)
    _check_range("presence_penalty", sampling.presence_penalty, -2.0, 2.0)
    if sampling.seed is not None:
        _check_range("seed", sampling.seed, _MIN_SEED, _MAX_SEED)
    if sampling.logprobs is not None:
        _check_range("logprobs", sampling.logprobs, 0, MAX_LOGPROBS)
    if sampling.prompt_logprobs is not None:
        _check_range("prompt_logprobs", sampling.prompt_logprobs, 0, MAX_LOGPROBS)


def _check_range(
    name: str, value: float, low: float, high: float, *, low_included: bool = True
) -> None:
    """Infinity and NaN are outside every range."""
    in_range = low <= value <= high if low_included else low < value <= high
    if in_range and math.isfinite(value):
        return
    lower = f"at least {low}" if low_included else f"more than {low}"
    bounds = f"{lower} and finite" if high == math.inf else f"{lower} and at most {high}"
    raise InvalidRequest(f"{name} is {value}, but it must be {bounds}.", param=name)


def _check_stop(stop: tuple[str, ...]) -> None:
    if len(stop) > MAX_STOP_STRINGS:
        raise InvalidRequest(
            f"{len(stop)} stop strings were given, but at most {MAX_STOP_STRINGS} are allowed.",
            param="stop",
        )
    for text in stop:
        if not 0 < len(text) <= MAX_STOP_STRING_CHARACTERS:
            raise InvalidRequest(
                f"A stop string has {len(text)} characters, but it must have between 1 and "
                f"{MAX_STOP_STRING_CHARACTERS}.",
                param="stop",
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidRequest(
                "A stop string holds half of a surrogate pair, which is not text. Send whole "
                "characters.",
                param="stop",
            )


def _check_token_ids(name: str, token_ids: Iterable[int], vocab_size: int) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(
                f"{name} names the token {token_id}, but the model's tokens are 0 to "
                f"{vocab_size - 1}.",
                param=name,
            )
