"""The n Requests of one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_hex

from novacron.gateway.cache_scope import scope_of, session_tag
from novacron.gateway.calls import CallOrigin
from novacron.gateway.openai.schema import GenerationBody
from novacron.gateway.slo import objectives_of
from novacron.records.request import Request, SamplingParams


def copies_of(
    prompt_token_ids: Sequence[int],
    sampling: SamplingParams,
    body: GenerationBody,
    origin: CallOrigin,
) -> tuple[Request, ...]:
    """`body.n` Requests that share their prompt's blocks but not their random numbers.

    Engine ids are our own, so that clients who reuse theirs do not collide. Raises InvalidRequest
    for fields about the cache that contradict each other.
    """
    scope = scope_of(origin.caller, body.cache_salt, body.cache_scope)
    objectives = objectives_of(body.slo_class, body.ttft_slo, body.tpot_slo)
    return tuple(
        Request(
            request_id=token_hex(16),
            prompt_token_ids=tuple(prompt_token_ids),
            sampling=sampling.for_copy(copy),
            arrival_time_s=origin.arrival_time_s,
            priority=origin.caller.priority_of(body.priority),
            tenant=origin.caller.tenant,
            weight=origin.caller.weight,
            ttft_slo_s=objectives.ttft_s,
            tpot_slo_s=objectives.tpot_s,
            cache_salt=scope.salt,
            cache_scope=scope.tag,
            session=session_tag(origin.caller, body.session_id),
            variant=origin.variant,
        )
        for copy in range(body.n or 1)
    )
