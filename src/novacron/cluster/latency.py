"""How long a request would take on a replica: a prediction from what is known of both. Pure.

A step of an engine costs a fixed time, a time for every token of a prompt that it computes, and a
time for every running request. So the first token comes after the prompts that are ahead and the
own one, and the others at the pace of a step with the requests that run there. Where all places in
the batch or all KV blocks are taken, somebody must end first.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class Speed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Seconds that a step costs: for a prompt token, for a running request, and in any case."""

    prefill_s: float
    row_s: float
    step_s: float


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A replica as the router sees it, for one request.

    `num_live` requests were sent to it and have not ended, `queued_tokens` of their prompts it has
    yet to compute. `free_tokens` is the room of KV blocks that no running request holds,
    `cached_tokens` how much of this request's prompt it is believed to have. `turn` is when it was
    chosen last: of equals the smallest is next.
    """

    replica_id: str
    is_ready: bool
    num_live: int
    queued_tokens: int
    max_num_seqs: int
    free_tokens: int
    cached_tokens: int
    speed: Speed
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """What a call asks for: tokens of its prompts, how many requests they are, and how many tokens
    each is expected to get. `home` is the replica that served its session last; empty: none."""

    num_tokens: int
    num_requests: int = 1
    output_tokens: float = 1.0
    home: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds from now to the first token, and to the last."""

    first_token_s: float
    latency_s: float


def predict(one: Candidate, demand: Demand) -> Prediction:
    """Grows with the replica's load, and with what of the prompt it has yet to compute."""
    speed, output_tokens = one.speed, demand.output_tokens
    num_running = min(one.num_live, one.max_num_seqs)
    num_with_us = min(one.num_live + demand.num_requests, one.max_num_seqs)
    pace_s = speed.step_s + speed.row_s * num_running
    until_others_end_s = output_tokens * pace_s
    num_too_many = max(0, one.num_live + demand.num_requests - one.max_num_seqs)
    wait_s = until_others_end_s * num_too_many / one.max_num_seqs
    to_compute = max(1, demand.num_tokens - one.cached_tokens)
    needed = to_compute + output_tokens
    wait_s += until_others_end_s * max(0.0, 1 - one.free_tokens / needed)
    first_token_s = wait_s + pace_s + (one.queued_tokens + to_compute) * speed.prefill_s
    decode_s = output_tokens * (speed.step_s + speed.row_s * num_with_us)
    return Prediction(first_token_s, first_token_s + decode_s)
