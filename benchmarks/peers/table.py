"""What rounds add up to: medians, ratios to the best peer, shares of the machine's limits. Pure.

Ratios are taken within a round and then summarised, so a slow moment of the machine, which all
contestants of that round share, does not count for or against anyone.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.peers.plan import Contestant, Work
from novacron.bench.machine_peaks import MachinePeaks
from novacron.bench.model_shapes import LlamaShape
from novacron.bench.report import Grid, number
from novacron.bench.result import Column, Goal, Metric, Row, metric

COLUMNS = (Column("rate"), Column("time"), Column("to_best_peer"), Column("of_limit"))

BITS_READ = {"bf16": 16, "int8": 8.125, "int4": 4.5}  # a weight, with a scale for 128 or 32
_PEAK_OF = {"bf16": "bf16", "int8": "int8", "int4": "int8"}  # activations have 8 bits for both


@dataclass
class Case:
    """A scenario in one precision: a reading per contestant and round, and the peaks then.

    Readings are tokens per second, of a `start` seconds. A contestant that fails has none.
    """

    name: str
    work: Work
    precision: str
    rounds: list[dict[str, float]] = field(default_factory=list)
    peaks: list[MachinePeaks] = field(default_factory=list)

    def readings(self, name: str) -> list[float]:
        return [one[name] for one in self.rounds if name in one]

    def median(self, name: str) -> float | None:
        readings = self.readings(name)
        return statistics.median(readings) if readings else None

    def ratios(self, name: str, baseline: str) -> list[float]:
        """How many times as fast as the baseline, round by round."""
        pairs = [
            (one[name], one[baseline]) for one in self.rounds if {name, baseline} <= one.keys()
        ]
        if self.work.kind == "start":
            return [theirs / ours for ours, theirs in pairs]
        return [ours / theirs for ours, theirs in pairs]

    def best_peer(self, contestants: Sequence[Contestant]) -> str | None:
        """The fastest engine that is not ours, by its median."""
        medians = {
            one.name: median
            for one in contestants
            if not one.ours and (median := self.median(one.name)) is not None
        }
        if not medians:
            return None
        choose = min if self.work.kind == "start" else max
        return choose(medians, key=medians.__getitem__)


def vocab_size(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text())["vocab_size"])


def weights_read(folder: Path) -> tuple[int, int]:
    """Numbers in the matrices that a token goes through: all layers', and the output's."""
    config = json.loads((folder / "config.json").read_text())
    names = set(LlamaShape.__dataclass_fields__)
    shape = LlamaShape(**{name: value for name, value in config.items() if name in names})
    matrices = {name: size for name, size in shape.tensors() if len(size) == 2}
    embedding = matrices.pop("model.embed_tokens.weight")
    output = matrices.pop("lm_head.weight", embedding)
    layers = sum(rows * columns for rows, columns in matrices.values())
    return layers, output[0] * output[1]


def shares_of_limit(
    case: Case, name: str, threads: int, weights: tuple[int, int]
) -> list[float] | None:
    """Of the memory's bandwidth (one stream), or of the peak of products (a long prompt)."""
    if case.work.kind == "start":
        return None
    layers, output = weights
    shares = []
    for readings, peaks in zip(case.rounds, case.peaks, strict=True):
        if name not in readings:
            continue
        if case.name == "decode-1":
            bytes_per_token = (layers + output) * BITS_READ[case.precision] / 8
            shares.append(readings[name] * bytes_per_token / peaks.read_gb_per_s[threads] / 1e9)
        elif case.work.kind == "prefill" and _PEAK_OF[case.precision] in peaks.gop_per_s:
            operations = 2 * (layers * case.work.prompt_tokens + output)
            seconds = case.work.prompt_tokens / readings[name]
            peak = peaks.gop_per_s[_PEAK_OF[case.precision]] * 1e9
            shares.append(operations / seconds / peak)
    return shares or None


def rows_of(
    case: Case, contestants: Sequence[Contestant], threads: int, weights: tuple[int, int]
) -> list[Row]:
    best = case.best_peer(contestants)
    rows = []
    for one in contestants:
        readings = case.readings(one.name)
        if not readings:
            continue
        metrics: dict[str, Metric] = {
            "time": metric("s", "lower", readings)
            if case.work.kind == "start"
            else metric("tok/s", "higher", readings)
        }
        if case.work.kind != "start":
            metrics = {"rate": metrics["time"]}
        if best is not None and (ratios := case.ratios(one.name, best)):
            metrics["to_best_peer"] = metric("x", "higher", ratios)
        shares = shares_of_limit(case, one.name, threads, weights)
        if shares:
            metrics["of_limit"] = metric("", "higher", shares)
        labels = {"scenario": case.name, "weights": case.precision, "engine": one.name}
        rows.append(Row(labels=dict(labels), metrics=metrics))
    return rows


def side_by_side(
    cases: Sequence[Case],
    contestants: Sequence[Contestant],
    threads: int,
    weights: tuple[int, int],
) -> Grid:
    """One line per scenario and precision, a column per contestant, and how ours stands."""
    names = [one.name for one in contestants]
    ours = [one.name for one in contestants if one.ours]
    header = ("scenario", "weights", *names, *(f"{name} / best peer" for name in ours), "of limit")
    lines = []
    for case in cases:
        best = case.best_peer(contestants)
        ratios = [case.ratios(name, best) if best else [] for name in ours]
        shares = shares_of_limit(case, ours[0], threads, weights) if ours else None
        lines.append(
            (
                case.name,
                case.precision,
                *(_reading(case, name) for name in names),
                *(f"{statistics.median(one):.2f}x {best}" if one else "" for one in ratios),
                f"{statistics.median(shares):.0%}" if shares else "",
            )
        )
    return Grid("Side by side: medians, tokens/s (start: seconds)", header, tuple(lines))


def _reading(case: Case, name: str) -> str:
    median = case.median(name)
    return "" if median is None else number(round(median, 2))


@dataclass(frozen=True)
class _Promise:
    """A ratio that one scenario must reach, to one peer or (empty) to the best."""

    scenario: str
    precision: str
    least: float
    peer: str = ""
    of: Literal["peer", "limit"] = "peer"

    @property
    def name(self) -> str:
        against = f" to {self.peer or 'the best peer'}" if self.of == "peer" else " of the limit"
        return f"{self.scenario} {self.precision}{against}"


PROMISES = (
    _Promise("decode-1", "int4", 1.3, "llama.cpp"),
    _Promise("decode-1", "int8", 1.2, "llama.cpp"),
    _Promise("decode-1", "bf16", 1.0, "llama.cpp"),
    _Promise("decode-1", "int8", 0.75, of="limit"),
    _Promise("decode-1", "bf16", 0.75, of="limit"),
    _Promise("decode-8", "int4", 2.0),
    _Promise("decode-16", "int4", 2.0),
    _Promise("decode-8", "int8", 1.4),
    _Promise("decode-16", "int8", 1.6),
    _Promise("prefill-512", "int8", 1.5),
    _Promise("prefill-512", "int8", 0.6, of="limit"),
    _Promise("decode-8k", "bf16", 1.0),
    _Promise("decode-8k", "int8", 1.0),
    _Promise("decode-8k", "int4", 1.0),
)


def goals_of(
    cases: Sequence[Case],
    contestants: Sequence[Contestant],
    threads: int,
    weights: tuple[int, int],
) -> list[Goal]:
    """The promises that these cases can judge, for the first contestant that is ours."""
    ours = next((one.name for one in contestants if one.ours), None)
    by_name = {(case.name, case.precision): case for case in cases}
    goals = []
    for promise in PROMISES:
        case = by_name.get((promise.scenario, promise.precision))
        if case is None or ours is None:
            continue
        if promise.of == "limit":
            values = shares_of_limit(case, ours, threads, weights) or []
        else:
            peer = promise.peer or case.best_peer(contestants)
            values = case.ratios(ours, peer) if peer else []
        if values:
            goals.append(
                Goal(
                    name=promise.name,
                    limit=promise.least,
                    better="higher",
                    value=statistics.median(values),
                    unit="x" if promise.of == "peer" else "",
                )
            )
    return goals + _rising(by_name, ours) + _starts(by_name, ours) + _narrow_kv(cases, contestants)


def _starts(cases: Mapping[tuple[str, str], Case], ours: str | None) -> list[Goal]:
    case = cases.get(("start", "int4"))
    seconds = case.median(ours) if case and ours else None
    if seconds is None:
        return []
    return [Goal(name="start int4", limit=3.0, better="lower", value=seconds, unit="s")]


def _narrow_kv(cases: Sequence[Case], contestants: Sequence[Contestant]) -> list[Goal]:
    """At a long context, keys and values of 8 bits against those of our first contestant."""
    ours = [one for one in contestants if one.ours]
    goals = []
    for case in cases:
        for one in ours[1:]:
            ratios = case.ratios(one.name, ours[0].name)
            if case.name == "decode-8k" and one.options.get("kv_cache_dtype") == "int8" and ratios:
                name = f"decode-8k {case.precision}, int8 KV to {ours[0].name}"
                value = statistics.median(ratios)
                goals.append(Goal(name=name, limit=1.3, better="higher", value=value, unit="x"))
    return goals


def _rising(cases: Mapping[tuple[str, str], Case], ours: str | None) -> list[Goal]:
    """64 streams together are faster than 16. The two are different rounds: medians only."""
    goals = []
    for precision in BITS_READ:
        few, many = cases.get(("decode-16", precision)), cases.get(("decode-64", precision))
        if ours is None or few is None or many is None:
            continue
        before, after = few.median(ours), many.median(ours)
        if before and after:
            name = f"64 streams to 16, {precision}"
            goals.append(
                Goal(name=name, limit=1.0, better="higher", value=after / before, unit="x")
            )
    return goals
