"""What crosses between the bench and engine_alone: a batch of requests, and when tokens came."""

from __future__ import annotations

import msgspec


class Batch(msgspec.Struct, frozen=True):
    """Requests that start together and each generate exactly `max_tokens` tokens, greedily."""

    batch_id: int
    prompts: tuple[tuple[int, ...], ...]
    max_tokens: int


class BatchTimes(msgspec.Struct, frozen=True):
    """Times of time.perf_counter(); one list of token times per request, in order."""

    started_s: float
    token_times_s: tuple[tuple[float, ...], ...]
