"""The n Requests of one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import msgspec

from novacron.gateway.calls import CallOrigin
from novacron.gateway.openai.schema import GenerationBody
from novacron.records.request import Request, SamplingParams

_MAX_SEED = 2**63 - 1
_NUM_SEEDS = 2**64


def copies_of(
    prompt_token_ids: Sequence[int],
    sampling: SamplingParams,
    body: GenerationBody,
    origin: CallOrigin,
) -> tuple[Request, ...]:
    """`body.n` Requests that share their prompt's blocks but not their random numbers.

    Engine ids are our own, so that clients who reuse theirs do not collide.
    """
    return tuple(
        Request(
            request_id=uuid4().hex,
            prompt_token_ids=tuple(prompt_token_ids),
            sampling=_with_own_seed(sampling, copy),
            arrival_time_s=origin.arrival_time_s,
            priority=body.priority or 0,
            cache_salt=body.cache_salt or "",
        )
        for copy in range(body.n or 1)
    )


def _with_own_seed(sampling: SamplingParams, copy: int) -> SamplingParams:
    """The first copy has the client's seed, the others those after it, as with LLM.generate."""
    if sampling.seed is None:
        return sampling
    seed = sampling.seed + copy
    return msgspec.structs.replace(sampling, seed=seed - _NUM_SEEDS if seed > _MAX_SEED else seed)
