"""What rounds of throughput add up to: rates, shares, added time, goals. Pure.

A round holds one batch per contestant on the same prompts. Shares and differences are taken within
a round and then summarised over rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from novacron.bench.result import Goal, Metric, metric, milliseconds
from novacron.bench.transcript import Transcript

CORE, PROCESS, HTTP = "engine core", "engine process", "http"  # contestants

_GOAL_SHARE = 0.90
_GOAL_ADDED_MS = 2.0


@dataclass(frozen=True)
class Batch:
    """One contestant's part of one round.

    `cpu_s` is what it took of the bench's process; `step_s` the mean step of the server's engine by
    its own clock, where a server tells.
    """

    transcripts: Sequence[Transcript]
    cpu_s: float
    step_s: float | None = None

    @property
    def wall_s(self) -> float:
        first = min(t.started_s for t in self.transcripts)
        return max(t.ended_s for t in self.transcripts) - first

    @property
    def output_rate(self) -> float:
        return sum(t.num_output_tokens for t in self.transcripts) / self.wall_s

    @property
    def total_rate(self) -> float:
        prompt_tokens = sum(t.num_prompt_tokens for t in self.transcripts)
        return self.output_rate + prompt_tokens / self.wall_s

    @property
    def median_tpot_s(self) -> float:
        return statistics.median(t.tpot_s or 0.0 for t in self.transcripts)

    @property
    def mean_step_s(self) -> float:
        """As the engine says; else as equal streams show it, which get a token each per step."""
        if self.step_s is not None:
            return self.step_s
        return self.wall_s / max(t.num_output_tokens for t in self.transcripts)


Round = Mapping[str, Batch]  # by contestant


T = TypeVar("T")


def turn_order(contestants: Sequence[T], turn: int) -> Sequence[T]:
    """Everybody goes first equally often, and follows everybody else."""
    start = turn % len(contestants)
    order = [*contestants[start:], *contestants[:start]]
    return order if (turn // len(contestants)) % 2 == 0 else order[::-1]


def metrics_of(name: str, rounds: Sequence[Round]) -> dict[str, Metric]:
    batches = [batches[name] for batches in rounds]
    transcripts = [t for batch in batches for t in batch.transcripts]
    metrics = {
        "output_rate": metric("tok/s", "higher", [b.output_rate for b in batches]),
        "total_rate": metric("tok/s", "higher", [b.total_rate for b in batches]),
        "ttft": milliseconds([t.ttft_s for t in transcripts]),
        "tpot": milliseconds([b.median_tpot_s for b in batches]),
        "e2e": milliseconds([t.e2e_s for t in transcripts]),
        "client": metric("of a core", "neither", [b.cpu_s / b.wall_s for b in batches]),
    }
    itls = [itl for t in transcripts for itl in t.itls_s]
    if itls:
        metrics["itl"] = milliseconds(itls)
    if CORE in rounds[0]:
        metrics["share"] = metric("", "higher", shares(rounds, name, CORE))
        metrics["added_per_token"] = milliseconds(added_s(rounds, name, CORE))
    return metrics


def shares(rounds: Sequence[Round], name: str, baseline: str) -> list[float]:
    """Of the baseline's output rate."""
    return [batches[name].output_rate / batches[baseline].output_rate for batches in rounds]


def added_s(rounds: Sequence[Round], name: str, baseline: str) -> list[float]:
    """Time per token beyond the baseline's."""
    return [batches[name].median_tpot_s - batches[baseline].median_tpot_s for batches in rounds]


def goals_of(rounds: Sequence[Round]) -> list[Goal]:
    """Against both baselines: the bare core, and the engine process as the gateway drives it."""
    goals = []
    for baseline in (CORE, PROCESS):
        if {baseline, HTTP} <= rounds[0].keys():
            goals += [_share_goal(rounds, baseline), _added_goal(rounds, baseline)]
    return goals


def mean_steps_ms(rounds: Sequence[Round]) -> dict[str, float]:
    """Median over rounds of the mean step, prefill included, by contestant."""
    return {
        name: round(statistics.median(batches[name].mean_step_s for batches in rounds) * 1000, 3)
        for name in rounds[0]
    }


def _share_goal(rounds: Sequence[Round], baseline: str) -> Goal:
    return Goal(
        name=f"share of the {baseline}'s throughput that HTTP keeps",
        limit=_GOAL_SHARE,
        better="higher",
        value=statistics.median(shares(rounds, HTTP, baseline)),
    )


def _added_goal(rounds: Sequence[Round], baseline: str) -> Goal:
    return Goal(
        name=f"time per token that HTTP adds to the {baseline}",
        limit=_GOAL_ADDED_MS,
        better="lower",
        value=statistics.median(added_s(rounds, HTTP, baseline)) * 1000,
        unit="ms",
    )
