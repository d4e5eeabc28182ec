"""What guardians have said so far, in numbers. Labels are names of the configuration."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from novacron.observability.definition import Sample, Values, counter, gauge

DEFINITIONS = (
    counter(
        "novacron_guardian_verdicts", "Verdicts, by what they say.", "guardian", "stage", "outcome"
    ),
    counter("novacron_guardian_seconds", "Time that guardians took.", "guardian"),
    counter("novacron_guardian_cache_hits", "Verdicts that were kept from before.", "guardian"),
    counter("novacron_guardian_dropped", "Texts that an observer had no time for.", "guardian"),
    gauge(
        "novacron_guardian_score",
        "Mean score over all calls, as estimated from those that were looked at: from 0 to 1, or "
        "somewhat above while these are few.",
        "guardian",
    ),
    gauge(
        "novacron_guardian_finding_share",
        "Share of all calls with a finding, as estimated from those that were looked at.",
        "guardian",
    ),
    counter("novacron_specialist_fallbacks", "Calls that another name answered.", "specialist"),
)


@dataclass
class GuardianTotals:
    """`verdicts` by guardian, stage and outcome; `estimates`: of an observer, over all calls, the
    mean of its score and the share of findings."""

    verdicts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    cached: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)
    estimates: dict[str, tuple[float, float]] = field(default_factory=dict)

    def see(
        self, guardian: str, stage: str, outcome: str, seconds: float = 0.0, *, is_cached: bool
    ) -> None:
        self.verdicts[guardian, stage, outcome] += 1
        self.seconds[guardian] += seconds
        self.cached[guardian] += is_cached


def guardian_values(totals: GuardianTotals) -> Values:
    return {
        "novacron_guardian_verdicts": [
            (labels, float(count)) for labels, count in sorted(totals.verdicts.items())
        ],
        "novacron_guardian_seconds": _by_name(totals.seconds),
        "novacron_guardian_cache_hits": _by_name(totals.cached),
        "novacron_guardian_dropped": _by_name(totals.dropped),
        "novacron_guardian_score": [
            ((name,), score) for name, (score, _) in sorted(totals.estimates.items())
        ],
        "novacron_guardian_finding_share": [
            ((name,), share) for name, (_, share) in sorted(totals.estimates.items())
        ],
        "novacron_specialist_fallbacks": _by_name(totals.fallbacks),
    }


def _by_name(counts: Mapping[str, float]) -> list[Sample]:
    return [((name,), float(value)) for name, value in sorted(counts.items())]
