"""SharedLoad: tenants on one scheduler, in virtual time, and what each of them gets.

Nothing is computed: a step takes as long as its tokens, and every token is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from novacron.config.scheduler import SchedulerConfig
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.output import EngineOutput
from novacron.records.request import Request, SamplingParams
from novacron.records.step import ModelRunnerOutput, ScheduledTokens, SchedulerOutput, StepResult
from novacron.scheduler.scheduler import Scheduler
from novacron.testing.clock import FakeClock

STEP_S: Final = 0.001  # of a small model on a CPU: a step takes so long, and each token in it
TOKEN_S: Final = 0.00005

_BLOCK_SIZE: Final = 16


@dataclass(eq=False)
class Tenant:
    """Sends requests of so many tokens, `num_streams` at once, each followed by the next, `pause_s`
    after its end."""

    name: str
    num_streams: int = 1
    prompt_tokens: int = 32
    output_tokens: int = 16
    weight: float = 1.0
    priority: int = 0
    pause_s: float = 0.0
    ttft_slo_s: float = 0.0
    tpot_slo_s: float = 0.0
    tokens: int = 0  # served so far, prompt and output
    cost: float = 0.0  # the same, as shares count them
    ttfts_s: list[float] = field(default_factory=list)
    num_ended: int = 0


@dataclass(eq=False)
class _Running:
    tenant: Tenant
    sent_s: float
    num_seen: int = 0  # of the prompt's tokens, that were computed
    num_output: int = 0


class SharedLoad:
    """`step` or `run`. Prompts share nothing."""

    def __init__(
        self, tenants: Sequence[Tenant], config: SchedulerConfig, *, num_blocks: int = 8192
    ) -> None:
        self.clock = FakeClock()
        self.kv_cache = KVCacheManager(
            num_blocks,
            _BLOCK_SIZE,
            model_version="none",
            kv_dtype="none",
            enable_prefix_caching=False,
        )
        self.scheduler = Scheduler(
            config,
            self.kv_cache,
            max_model_len=num_blocks * _BLOCK_SIZE,
            eos_token_ids=frozenset(),
            clock=self.clock,
        )
        self.running: dict[str, _Running] = {}
        self._num_sent = 0
        self._due = [
            (self.clock(), tenant) for tenant in tenants for _ in range(tenant.num_streams)
        ]

    def run(self, seconds: float) -> None:
        """Until so much virtual time has passed."""
        end_s = self.clock() + seconds
        while self.clock() < end_s:
            self.step()

    def step(self) -> SchedulerOutput:
        """Send what is due, and compute a step; if there is nothing to compute, wait."""
        now_s = self.clock()
        due, self._due = self._due, []
        for at_s, tenant in due:
            if at_s <= now_s:
                self.send(tenant, at_s)
            else:
                self._due.append((at_s, tenant))
        decision = self.scheduler.schedule()
        self.clock.advance(STEP_S + TOKEN_S * decision.num_tokens)
        results = tuple(map(self._compute, decision.scheduled))
        for output in self.scheduler.update(decision, ModelRunnerOutput(decision.step, results)):
            self._take(output)
        return decision

    def send(self, tenant: Tenant, at_s: float) -> str:
        self._num_sent += 1
        request_id = f"{tenant.name}-{self._num_sent}"
        request = Request(
            request_id=request_id,
            prompt_token_ids=(1,) * tenant.prompt_tokens,
            sampling=SamplingParams(max_tokens=tenant.output_tokens, ignore_eos=True, seed=0),
            arrival_time_s=at_s,
            tenant=tenant.name,
            weight=tenant.weight,
            priority=tenant.priority,
            ttft_slo_s=tenant.ttft_slo_s,
            tpot_slo_s=tenant.tpot_slo_s,
        )
        self.running[request_id] = _Running(tenant, at_s)
        self.scheduler.add(request)
        return request_id

    def _compute(self, part: ScheduledTokens) -> StepResult:
        one = self.running[part.request_id]
        end = part.start + part.num_tokens
        num_new = min(end, one.tenant.prompt_tokens) - one.num_seen
        if num_new > 0:  # not again after a preemption
            one.num_seen += num_new
            one.tenant.tokens += num_new
            one.tenant.cost += num_new
        is_next = end == one.tenant.prompt_tokens + one.num_output
        return StepResult(part.request_id, token_ids=(1,) if is_next else ())

    def _take(self, output: EngineOutput) -> None:
        one = self.running[output.request_id]
        tenant, num_tokens = one.tenant, len(output.new_token_ids)
        if one.num_output == 0:
            tenant.ttfts_s.append(self.clock() - one.sent_s)
        one.num_output += num_tokens
        tenant.tokens += num_tokens
        tenant.cost += 2 * num_tokens
        if output.finish_reason is not None:
            tenant.num_ended += 1
            del self.running[output.request_id]
            self._due.append((self.clock() + tenant.pause_s, tenant))


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all have the same, 1/n if one has all."""
    return float(sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares)))
