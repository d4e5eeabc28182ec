"""What rounds of speculation add up to: speeds, ratios, goals. Pure.

A round holds one batch per method, on the same questions; ratios are taken within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from novacron.bench.result import Goal, Metric, metric

OFF = "off"
_GOAL_RATIO = 0.95  # of the speed without, where speculation may not pay


@dataclass(frozen=True)
class Batch:
    """What one method did with the questions of one round."""

    answers: tuple[tuple[int, ...], ...]
    wall_s: float
    num_steps: int
    num_draft_tokens: int
    num_accepted_tokens: int
    draft_time_s: float

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.answers))

    @property
    def output_rate(self) -> float:
        return self.num_tokens / self.wall_s


Round = Mapping[str, Batch]  # by method


def metrics_of(method: str, rounds: Sequence[Round]) -> dict[str, Metric]:
    """Of one method at one number of streams."""
    batches = [batches[method] for batches in rounds]
    ratios = [batches[method].output_rate / batches[OFF].output_rate for batches in rounds]
    num_drafts = [batch.num_draft_tokens for batch in batches]
    metrics = {
        "output_rate": metric("tok/s", "higher", [batch.output_rate for batch in batches]),
        "ratio": metric("", "higher", ratios),
        "tokens_per_step": metric("", "higher", [b.num_tokens / b.num_steps for b in batches]),
        "drafting": metric("of the time", "lower", [b.draft_time_s / b.wall_s for b in batches]),
    }
    if sum(num_drafts):
        shares = [b.num_accepted_tokens / b.num_draft_tokens for b in batches if b.num_draft_tokens]
        metrics["right"] = metric("of the guesses", "higher", shares)
    return metrics


def goals_of(rounds: Mapping[int, Sequence[Round]]) -> list[Goal]:
    """No token changes; and nothing is lost where nothing can be won."""
    every = [batches for done in rounds.values() for batches in done]
    num_different = sum(
        one != other
        for batches in every
        for batch in batches.values()
        for one, other in zip(batch.answers, batches[OFF].answers, strict=True)
    )
    goals = [
        Goal(
            name="answers that are not what they are without speculation",
            limit=0,
            better="lower",
            value=num_different,
        )
    ]
    most = max(rounds)
    for method in every[0]:
        if method != OFF:
            ratio = metrics_of(method, rounds[most])["ratio"].summary.p50
            goals.append(
                Goal(
                    name=f"speed with {method} at {most} streams, of that without",
                    limit=_GOAL_RATIO,
                    better="higher",
                    value=ratio,
                )
            )
    return goals
