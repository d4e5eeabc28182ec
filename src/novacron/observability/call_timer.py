"""The times of a call, measured where its outputs arrive."""

from __future__ import annotations

import time

from novacron.observability.metrics import Metrics
from novacron.records.output import RequestOutput


class CallTimer:
    """The times of one call's requests, from their outputs as they arrive here."""

    def __init__(self, metrics: Metrics, arrival_time_s: float, num_requests: int) -> None:
        self._metrics = metrics
        self._arrival_time_s = arrival_time_s
        self._scheduled_time_s: list[float | None] = [None] * num_requests
        self._first_token_time_s: list[float | None] = [None] * num_requests
        self._last_token_time_s = [0.0] * num_requests

    def observe(self, output: RequestOutput) -> None:
        now_s = time.monotonic()
        if output.first_scheduled_time_s is not None:
            self._see_scheduled(output.index, output.first_scheduled_time_s)
        if output.pause_s is not None:
            self._metrics.recovery_pause.observe(output.pause_s)
        if output.token_ids:
            self._see_tokens(output.index, len(output.token_ids), now_s)
        if output.finish_reason is not None:
            self._see_end(output, now_s)

    def fail(self, error: Exception) -> None:
        """The call ends with `error` instead of a last output."""
        self._metrics.errors[type(error).__name__] += 1

    def first_token_s(self, index: int = 0) -> float | None:
        """Arrival to first token of one request."""
        first = self._first_token_time_s[index]
        return None if first is None else first - self._arrival_time_s

    def queue_s(self, index: int = 0) -> float | None:
        scheduled = self._scheduled_time_s[index]
        return None if scheduled is None else scheduled - self._arrival_time_s

    def _see_scheduled(self, index: int, time_s: float) -> None:
        if self._scheduled_time_s[index] is None:
            self._scheduled_time_s[index] = time_s
            self._metrics.queue_time.observe(max(0.0, time_s - self._arrival_time_s))

    def _see_tokens(self, index: int, num_tokens: int, now_s: float) -> None:
        if self._first_token_time_s[index] is None:
            self._first_token_time_s[index] = now_s
            self._metrics.first_token.observe(now_s - self._arrival_time_s)
            scheduled = self._scheduled_time_s[index]
            if scheduled is not None:
                self._metrics.prefill_time.observe(max(0.0, now_s - scheduled))
        else:
            elapsed_s = now_s - self._last_token_time_s[index]
            self._metrics.inter_token.observe(elapsed_s / num_tokens, num_tokens)
        self._last_token_time_s[index] = now_s

    def _see_end(self, output: RequestOutput, now_s: float) -> None:
        metrics = self._metrics
        assert output.finish_reason is not None
        metrics.finished[output.finish_reason.value] += 1
        metrics.latency.observe(now_s - self._arrival_time_s)
        metrics.prompt_tokens.observe(output.num_prompt_tokens)
        metrics.generation_tokens.observe(output.num_output_tokens)
        first = self._first_token_time_s[output.index]
        if first is not None:
            metrics.decode_time.observe(now_s - first)
