"""Canary: a small request, now and then, through the whole path of an engine: socket, scheduler,
all ranks, sampler. Its greedy answer is known from the first time; an engine that gives another
one, or none while it has nothing else to do, is not well, whatever else it says. Pure.

It is nobody's: no total counts it. It is shorter than a block of the KV cache, so it leaves none.
Time is counted in looks, as in HeartMonitor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from msgspec.structs import replace

from novacron.records.output import CanaryStats, EngineOutput, ModelSpec
from novacron.records.request import Request, SamplingParams

LEAST_CONTEXT: Final = 12  # tokens that it takes
MOST_FAILURES: Final = 3  # one after the other, also of engines started anew

_PROMPT_TOKENS: Final = 4
_OUTPUT_TOKENS: Final = LEAST_CONTEXT - _PROMPT_TOKENS
_BUSY_FACTOR: Final = 4  # so many intervals apart, beside other work
_SLOW_FACTOR: Final = 10  # of what the first one took

Failure = Literal["wrong", "missing"]


@dataclass
class CanaryRecord:
    """What is known of a client's engines, whichever process is the engine by now. `answers`: by
    what they depend on."""

    stats: CanaryStats = field(default_factory=CanaryStats)
    answers: dict[tuple[str, ...], tuple[int, ...]] = field(default_factory=dict)
    num_failures: int = 0  # since one has passed
    first_took_s: float = 0.0


class Canary:
    """For one engine process. `interval_s` 0: there is none. `look_s`: between two looks."""

    def __init__(
        self,
        record: CanaryRecord,
        *,
        interval_s: float,
        timeout_s: float,
        look_s: float,
        is_first: bool,
    ) -> None:
        """`is_first`: before it, no engine of this client was ready. One that was started anew is
        tried at once, if it is known what it has to say."""
        self._record = record
        self._interval_s, self._timeout_s, self._look_s = interval_s, timeout_s, look_s
        self._waited_s = 0.0 if is_first or not record.answers else float("inf")
        self._key: tuple[str, ...] = ()
        self._request_id = ""
        self._tokens: list[int] = []
        self._sent_s = self._alone_s = 0.0

    @property
    def is_under_way(self) -> bool:
        return bool(self._request_id)

    def is_due(self, num_live: int) -> bool:
        """To be asked at each look. `num_live`: requests of others."""
        if not self._interval_s or self.is_under_way:
            return False
        self._waited_s += self._look_s
        if num_live:
            return self._waited_s > self._interval_s * _BUSY_FACTOR
        return self._waited_s > self._interval_s

    def begin(self, number: int, spec: ModelSpec, now_s: float) -> Request:
        """The request to be sent."""
        self._key = (spec.host, spec.model_version, spec.quantization, spec.kv_identity)
        self._request_id, self._tokens = f"canary-{number}", []
        self._sent_s, self._alone_s, self._waited_s = now_s, 0.0, 0.0
        return Request(
            request_id=self._request_id,
            prompt_token_ids=tuple(
                spec.vocab_size * place // (_PROMPT_TOKENS + 1)
                for place in range(1, _PROMPT_TOKENS + 1)
            ),
            sampling=SamplingParams(
                temperature=0.0, max_tokens=_OUTPUT_TOKENS, ignore_eos=True, seed=0
            ),
            arrival_time_s=now_s,
            cache_salt="canary",
            uncounted=True,
        )

    def take(
        self, outputs: tuple[EngineOutput, ...], now_s: float
    ) -> tuple[tuple[EngineOutput, ...], Failure | None]:
        """Those that are others', and what is wrong with an answer that is whole now."""
        if not self.is_under_way:
            return outputs, None
        own = [one for one in outputs if one.request_id == self._request_id]
        if not own:
            return outputs, None
        others = tuple(one for one in outputs if one.request_id != self._request_id)
        return others, self._see(own, now_s)

    def look(self, num_live: int) -> Failure | None:
        """To be called at each look. Time beside other requests does not count: they come first."""
        if not self.is_under_way:
            return None
        self._alone_s = 0.0 if num_live else self._alone_s + self._look_s
        limit_s = max(self._timeout_s, _SLOW_FACTOR * self._record.first_took_s)
        return self._fail("missing") if self._alone_s > limit_s else None

    def _see(self, outputs: Iterable[EngineOutput], now_s: float) -> Failure | None:
        for output in outputs:
            self._tokens += output.new_token_ids
            if output.finish_reason is None:
                continue
            self._request_id = ""
            if output.was_shed:  # others came first, and said so
                return None
            record, tokens = self._record, tuple(self._tokens)
            if not tokens or record.answers.setdefault(self._key, tokens) != tokens:
                return self._fail("wrong")
            took_s = now_s - self._sent_s
            record.first_took_s = record.first_took_s or took_s
            record.num_failures = 0
            record.stats = replace(
                record.stats,
                num_passed=record.stats.num_passed + 1,
                last_passed_s=now_s,
                last_took_s=took_s,
                is_failing=False,
            )
        return None

    def _fail(self, failure: Failure) -> Failure:
        self._request_id = ""
        self._interval_s = 0.0  # once is enough: this engine ends
        record = self._record
        record.num_failures += 1
        name = f"num_{failure}"
        counted = {name: getattr(record.stats, name) + 1}
        record.stats = replace(record.stats, is_failing=True, **counted)
        return failure
