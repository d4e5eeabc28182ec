"""SchedulerTotals: what a scheduler counts from its start on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SchedulerTotals:
    """Fields of EngineStats of the same names."""

    num_steps: int = 0
    num_preemptions: int = 0
    num_shed: int = 0
    prefix_queries_tokens: int = 0
    prefix_hits_tokens: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
