"""What the watch over a serving model decides: which answers are scored, when, and what they say.

Pure: times and scores are given. executor/quality_watch.py computes, engine/watched_answers.py
gathers the answers.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from novacron.quality.document import DocumentScores
from novacron.quality.drift import DriftDetector
from novacron.records.output import WatchStats

ANSWERS_IN_FIGURES = 200  # answers that the gauges are of
FEWEST_FOR_FLOOR = 20
_RECOVERY = 0.25  # of what is lost at the floor: how far above it quality must be again
_BUSY_SHARE = 0.005  # of the time of an engine that is never idle
_SETTLED_S = 0.5  # without work: shorter gaps are those between the requests of busy clients


def recovery_limit(floor: float) -> float:
    """What quality must reach again once it has been below the floor."""
    return floor + (1 - floor) * _RECOVERY


def is_sampled(request_id: str, share: float) -> bool:
    """The same answer for the same id, for about `share` of all."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


@dataclass
class Turns:
    """When the watch may compute: always, once nothing has run for `settled_s`, and else for less
    than `busy_share` of the time."""

    busy_share: float = _BUSY_SHARE
    settled_s: float = _SETTLED_S
    _idle_since_s: float | None = None
    _credit_s: float = 0.0
    _asked_s: float | None = None
    _cost_s: float = 0.0  # of the last piece of work

    def is_due(self, now_s: float, *, is_idle: bool) -> bool:
        passed_s = 0.0 if self._asked_s is None else now_s - self._asked_s
        self._asked_s = now_s
        if not is_idle:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = now_s
        if self._is_settled(now_s):
            return True
        self._credit_s = min(self._credit_s + passed_s * self.busy_share, self._cost_s)
        return self._credit_s >= self._cost_s

    def spent(self, seconds: float) -> None:
        """So long took what was due at last."""
        self._cost_s = seconds
        if self._asked_s is not None and not self._is_settled(self._asked_s):
            self._credit_s -= seconds

    def _is_settled(self, now_s: float) -> bool:
        return self._idle_since_s is not None and now_s - self._idle_since_s >= self.settled_s


@dataclass
class QualityRecord:
    """What the scored answers say. `observe` returns the alerts that one of them raises: texts for
    the log, without any content of the answer."""

    floor: float
    detector: DriftDetector = field(default_factory=DriftDetector)
    num_scored: int = 0
    num_alerts: int = 0
    is_below_floor: bool = False
    quality: float | None = None
    _top1_agreement: float | None = None
    _kl: float | None = None
    _recent: deque[DocumentScores] = field(default_factory=lambda: deque(maxlen=ANSWERS_IN_FIGURES))

    def observe(self, scores: DocumentScores) -> list[str]:
        self.num_scored += 1
        self._recent.append(scores)
        # Once an answer: the figures are asked for with every step.
        self._top1_agreement, self._kl = self._mean("agrees"), self._mean("kl")
        # What the tokens of an answer cost both would not do: the variant itself chose them, so
        # they suit it better than the reference, the more the worse it is.
        self.quality = math.exp(-self._kl)
        alerts = []
        if self.detector.observe(scores):
            alerts.append(
                f"answers have come to differ more from the reference than usual: logit errors of "
                f"the last {min(self.num_scored, ANSWERS_IN_FIGURES)} scored answers rose"
            )
        if self._falls_below_floor():
            alerts.append(
                f"quality is {self.quality:.4f}, below the floor of {self.floor:g}, over the last "
                f"{len(self._recent)} scored answers"
            )
        self.num_alerts += len(alerts)
        return alerts

    def stats(self, num_dropped: int, seconds: float) -> WatchStats:
        return WatchStats(
            num_scored=self.num_scored,
            num_dropped=num_dropped,
            num_alerts=self.num_alerts,
            seconds=seconds,
            quality=self.quality,
            top1_agreement=self._top1_agreement,
            kl=self._kl,
            is_alarmed=self.detector.is_alarmed or self.is_below_floor,
        )

    def _falls_below_floor(self) -> bool:
        """With hysteresis: once below, it must recover first."""
        if self.quality is None or len(self._recent) < FEWEST_FOR_FLOOR:
            return False
        was_below = self.is_below_floor
        limit = recovery_limit(self.floor) if was_below else self.floor
        self.is_below_floor = self.quality < limit
        return self.is_below_floor and not was_below

    def _mean(self, measure: str) -> float:
        values: list[Sequence[float]] = [getattr(one, measure) for one in self._recent]
        return sum(map(sum, values)) / sum(map(len, values))
