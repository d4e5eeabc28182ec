"""Settings of the scheduler: how much at once, and who goes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from novacron.config.setting import require, setting


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What may run in one step."""

    max_num_seqs: int = setting(64, "most requests in one step")
    max_num_batched_tokens: int = setting(
        2048, "most tokens in one step, prompts and outputs together"
    )
    scheduling_policy: Literal["fair", "fcfs", "priority", "deadline"] = setting(
        "fair",
        "who goes first; fair: the lower priority number, then tenants in turn by what they were "
        "served, in proportion to their weights; fcfs: by arrival; priority: the lower number, "
        "then by arrival; deadline: whose first token is due first (slo_class, ttft_slo)",
    )
    priority_ageing: float = setting(
        30.0,
        "fair: waiting requests of a priority that are never let in count, after so long, as those "
        "of the next named one (normal for low): so nobody waits for ever; 0: they do",
        unit="s",
    )
    shared_chunk_tokens: int = setting(
        128,
        "fair: most prompt tokens in a step of tenants with far more requests than another that "
        "has just been there, so that its next request does not wait for a long step; 0: no limit",
    )
    enable_chunked_prefill: bool = setting(
        True, "compute long prompts in parts beside running requests"
    )
    max_queued_requests: int = setting(1024, "most requests waiting; more are refused with 503")
    preemption_mode: Literal["swap", "recompute"] = setting(
        "swap",
        "a request whose KV blocks are needed for others: its tokens go to the KV tier in RAM, or "
        "are computed again",
    )

    def __post_init__(self) -> None:
        for key in ("max_num_seqs", "max_num_batched_tokens", "max_queued_requests"):
            require(getattr(self, key) > 0, key, getattr(self, key), "give a positive number")
        require(
            self.priority_ageing >= 0, "priority_ageing", self.priority_ageing, "give 0 or more"
        )
        require(
            self.shared_chunk_tokens >= 0, "shared_chunk_tokens", self.shared_chunk_tokens,
            "give 0 or more",
        )  # fmt: skip
        require(
            self.max_num_batched_tokens >= self.max_num_seqs,
            "max_num_batched_tokens", self.max_num_batched_tokens,
            f"must be at least max_num_seqs ({self.max_num_seqs}), a token for each",
        )  # fmt: skip
