"""Whether a request can be computed at all, checked before it reaches the engine. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

from novacron.config.privacy import may_be_in
from novacron.errors import Forbidden, InvalidRequest, PromptTooLong
from novacron.records.output import ModelSpec
from novacron.records.request import Request
from novacron.records.sampling_validation import validate_sampling

_SEED_BITS = 63


def admit(request: Request, spec: ModelSpec, seeds: random.Random) -> Request:
    """The request with its seed and limits filled in.

    Raises InvalidRequest or PromptTooLong with the field at fault, and Forbidden if it may not be
    where the engine is. Nothing is ever truncated: a prompt whose output limit does not fit is
    refused with both numbers.
    """
    if not may_be_in(spec.region, request.regions):
        raise not_allowed_in(spec.region, request.regions)
    sampling = request.sampling
    validate_sampling(sampling, vocab_size=spec.vocab_size, max_model_len=spec.max_model_len)
    _check_tokens(request.prompt_token_ids + request.output_token_ids, spec.vocab_size)
    num_prompt_tokens = len(request.prompt_token_ids)
    if request.pooling is not None:
        if num_prompt_tokens > spec.max_model_len:
            raise PromptTooLong(num_prompt_tokens, None, spec.max_model_len)
        return _limited(request, 1, seeds)
    room = spec.max_model_len - num_prompt_tokens
    if room < 1:
        raise PromptTooLong(num_prompt_tokens, None, spec.max_model_len)
    if sampling.max_tokens is not None and sampling.max_tokens > room:
        raise PromptTooLong(num_prompt_tokens, sampling.max_tokens, spec.max_model_len)
    return _limited(request, sampling.max_tokens or room, seeds)


def not_allowed_in(region: str, allowed: Iterable[str]) -> Forbidden:
    where = f"in {region}" if region else "in a region that was not named"
    return Forbidden(
        f"Data of this tenant may be in {', '.join(allowed)} only, and what would compute it is "
        f"{where}. Call a server there, or have the tenant's regions changed."
    )


def _check_tokens(token_ids: tuple[int, ...], vocab_size: int) -> None:
    if not token_ids:
        raise InvalidRequest("The prompt is empty; give at least one token.", param="prompt")
    for extreme in (min(token_ids), max(token_ids)):
        if not 0 <= extreme < vocab_size:
            raise InvalidRequest(
                f"Token id {extreme} is outside the vocabulary (0 to {vocab_size - 1}).",
                param="prompt",
            )


def with_seed(request: Request, seeds: random.Random) -> Request:
    """The request with the seed that it brings, or one that is drawn."""
    sampling = request.sampling
    if sampling.seed is not None:
        return request
    sampling = msgspec.structs.replace(sampling, seed=seeds.getrandbits(_SEED_BITS))
    return msgspec.structs.replace(request, sampling=sampling)


def _limited(request: Request, max_tokens: int, seeds: random.Random) -> Request:
    request = with_seed(request, seeds)
    sampling = msgspec.structs.replace(request.sampling, max_tokens=max_tokens)
    return msgspec.structs.replace(request, sampling=sampling)
