"""What the watch's detector makes of scored answers: alarms, and how soon they come. Pure."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from novacron.bench.result import Goal, Metric, Row, metric, row
from novacron.bench.statistics import bootstrap_interval, wilson_interval
from novacron.bench.watch_job import ScoredAnswer, SliceRates
from novacron.quality.drift import DriftDetector

_DIGITS = 4


@dataclass(frozen=True)
class Trial:
    """Requests to a model with an error. `noticed_after`: so many had ended at the alarm; None:
    there was none. `shift` is of the figure's mean, in standard deviations of what is usual."""

    case: str
    noticed_after: int | None
    shift: float
    kl: float
    figures: tuple[float, ...]


@dataclass
class SoundRun:
    """The detector, fed with answers of the sound model, part after part."""

    detector: DriftDetector
    num_requests: int = 0
    num_alarms: int = 0
    figures: list[float] = field(default_factory=list)
    divergences: list[float] = field(default_factory=list)

    def feed(self, answers: Sequence[ScoredAnswer], num_requests: int) -> None:
        self.figures += [one.figure for one in answers]
        self.divergences += [one.kl for one in answers]
        self.num_alarms += sum([self.detector.observe_figure(one.figure) for one in answers])
        self.num_requests += num_requests

    def trial(self, case: str, answers: Sequence[ScoredAnswer]) -> Trial:
        """What comes after the sound answers, as if nothing had come between."""
        detector = copy.deepcopy(self.detector)
        alarms = (one.num_ended for one in answers if detector.observe_figure(one.figure))
        noticed_after = next(alarms, None)
        figures = [one.figure for one in answers]
        shift = statistics.mean(figures) - statistics.mean(self.figures)
        return Trial(
            case=case,
            noticed_after=noticed_after,
            shift=shift / (statistics.pstdev(self.figures) or math.inf),
            kl=statistics.mean(one.kl for one in answers),
            figures=tuple(figures),
        )


def sound_row(runs: Sequence[SoundRun]) -> Row:
    divergences = [kl for run in runs for kl in run.divergences]
    return row(
        {"case": "sound"},
        requests=metric("", "neither", [float(run.num_requests) for run in runs]),
        scored=metric("", "neither", [float(len(run.figures)) for run in runs]),
        alarms=metric("", "lower", [float(run.num_alarms) for run in runs]),
        kl=metric("mnat", "lower", [1000 * kl for kl in divergences], digits=_DIGITS),
        figure=_all_in_order([figure for run in runs for figure in run.figures]),
    )


def planted_rows(trials: Iterable[Trial], num_requests: int) -> list[Row]:
    """One for each case: how many of its trials were noticed within `num_requests`, the ends of the
    95 % interval of that share, and after how many requests those were."""
    by_case: dict[str, list[Trial]] = {}
    for trial in trials:
        by_case.setdefault(trial.case, []).append(trial)
    return [_planted_row(case, of_case, num_requests) for case, of_case in by_case.items()]


def _planted_row(case: str, trials: Sequence[Trial], num_requests: int) -> Row:
    after = [float(one.noticed_after) for one in trials if one.noticed_after is not None]
    interval = wilson_interval(len(after), len(trials))
    noticed = [float(one.noticed_after is not None) for one in trials]
    metrics = {
        "requests": metric("", "neither", [float(num_requests)] * len(trials)),
        "noticed": metric("", "higher", noticed, keep=len(trials)),
        "least": metric("", "higher", [interval.low]),
        "shift": metric("std", "neither", [one.shift for one in trials]),
        "kl": metric("mnat", "lower", [1000 * one.kl for one in trials], digits=_DIGITS),
        "figure": _all_in_order([figure for one in trials for figure in one.figures]),
    }
    if after:
        metrics["noticed_after"] = metric("requests", "lower", after)
    return row({"case": case}, **metrics)


def goals_of(runs: Sequence[SoundRun], layers: Sequence[Row], num_requests: int) -> list[Goal]:
    """No false alarm, and every layer noticed in every trial."""
    goals = [
        Goal(
            name=f"false alarms in {sum(run.num_requests for run in runs):,} requests",
            limit=0,
            better="lower",
            value=sum(run.num_alarms for run in runs),
        )
    ]
    if layers:
        worst = min(one.metrics["noticed"].summary.mean for one in layers)
        goals.append(
            Goal(
                name=f"share noticed within {num_requests} requests, of the worst layer",
                limit=1.0,
                better="higher",
                value=worst,
            )
        )
    return goals


def cost_row(rates: SliceRates) -> Row:
    """Throughput with the watch to that without, all slices together (they are equally long), with
    the ends of its 95 % interval over rounds; `busy`: the share of the watched time in which
    answers were scored."""
    with_it, without = np.asarray(rates.watched), np.asarray(rates.plain)
    throughput = float(with_it.mean() / without.mean())
    # What each round adds to the ratio of means, to first order.
    rounds = throughput + (with_it - throughput * without) / without.mean()
    interval = bootstrap_interval(rounds.tolist(), _mean)
    kept = {"keep": len(rates.plain), "digits": 0}
    return row(
        {"case": "cost"},
        throughput=metric("", "higher", [throughput], digits=_DIGITS),
        low=metric("", "higher", [interval.low], digits=_DIGITS),
        high=metric("", "higher", [interval.high], digits=_DIGITS),
        with_it=metric("tokens/s", "higher", rates.watched, **kept),
        without=metric("tokens/s", "higher", rates.plain, **kept),
        busy=metric("", "lower", [rates.busy], digits=6),
    )


def cost_goals(cost: Row) -> list[Goal]:
    """The share of the time is measured closely; what else the watch may cost (a cache that scoring
    has filled), only the throughput can tell."""
    return [
        Goal(
            name="share of the time that scoring takes from running requests",
            limit=0.01,
            better="lower",
            value=cost.metrics["busy"].summary.mean,
        ),
        Goal(
            name="throughput with the watch, of that without, low end of its interval",
            limit=0.99,
            better="higher",
            value=cost.metrics["low"].summary.mean,
        ),
    ]


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values.mean(axis=-1))


def case_name(pattern: str, factor: float) -> str:
    return f"{pattern.removeprefix('model.').rstrip('.')} x {factor:g}"


def figures_by_case(runs: Sequence[SoundRun]) -> Mapping[str, object]:
    """What is usual: the mean and the standard deviation of the figure."""
    figures = [figure for run in runs for figure in run.figures]
    return {
        "figure, mean": round(statistics.mean(figures), 4),
        "figure, standard deviation": round(statistics.pstdev(figures), 4),
    }


def _all_in_order(figures: Sequence[float]) -> Metric:
    """So that another rule can be tried on them."""
    return metric("", "lower", figures, keep=len(figures))
