"""Lets the tokens of a fast model travel together.

On the way to its client a token passes four sockets and two event loops, whether it travels alone
or with the next ones of its request; and nobody sees a hundredth of a second. So tokens wait until
sending them to all streams that have some takes a small part of the time since the last sending. A
request's first and last output never wait, and take along whatever waits. A model whose steps take
longer than that is not affected at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final, TypeVar

import msgspec

from novacron.records.output import EngineOutput

T = TypeVar("T")

# An eighth of a core, where a piece costs the API process and its client 0.1 ms together.
_INTERVAL_PER_STREAM_S: Final = 0.0008


class OutputPacer:
    """Between the steps of an engine and its outbox. Nothing waits longer than `longest_s` while
    steps are short; the owner flushes before a step that may be long."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._held: dict[str, list[EngineOutput]] = {}
        self._is_urgent = False
        self._sent_s = float("-inf")

    def put(self, outputs: Iterable[EngineOutput]) -> None:
        for output in outputs:
            self._held.setdefault(output.request_id, []).append(output)
            self._is_urgent = self._is_urgent or _is_urgent(output)

    def due(self, now_s: float) -> list[EngineOutput]:
        """All that is held, or nothing yet."""
        interval_s = min(self._longest_s, len(self._held) * _INTERVAL_PER_STREAM_S)
        if self._is_urgent or now_s - self._sent_s >= interval_s:
            return self.flush(now_s)
        return []

    def flush(self, now_s: float) -> list[EngineOutput]:
        """All that is held, one output per request."""
        outputs = [joined(parts) for parts in self._held.values()]
        self._held = {}
        self._is_urgent = False
        if outputs:
            self._sent_s = now_s
        return outputs


def joined(parts: list[EngineOutput]) -> EngineOutput:
    """Consecutive outputs of one request as one."""
    if len(parts) == 1:
        return parts[0]
    first, last = parts[0], parts[-1]
    return msgspec.structs.replace(
        last,
        new_token_ids=_chained(part.new_token_ids for part in parts),
        logprobs=_chained(part.logprobs for part in parts),
        prompt_logprobs=_chained(part.prompt_logprobs for part in parts),
        num_cached_tokens=max(part.num_cached_tokens for part in parts),
        first_scheduled_time_s=first.first_scheduled_time_s or last.first_scheduled_time_s,
    )


def _chained(parts: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(chain.from_iterable(parts))


def _is_urgent(output: EngineOutput) -> bool:
    return output.first_scheduled_time_s is not None or output.finish_reason is not None
