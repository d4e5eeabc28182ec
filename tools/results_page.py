"""Write benchmarks/results/README.md: what each committed result says of its goals.

make docs
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from novacron.bench.report import Grid, goals_grid
from novacron.bench.result import BenchResult, load

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
TARGET = RESULTS / "README.md"

INTRODUCTION = """\
# Results

Written by `make docs` from the files beside it; a test fails if it is out of date. How each is
measured is in [METHODOLOGY.md](../METHODOLOGY.md), beside peers in [METHOD.md](../peers/METHOD.md).

The machine is shared: see the load before and after in each file. Ratios are within one run;
absolute times say little. A goal that is missed stays here until a run meets it.
"""


def document() -> str:
    results = {path.stem: load(path) for path in sorted(RESULTS.glob("*.json"))}
    lines = tuple(line for name, result in results.items() for line in _lines(name, result))
    goals = [goal for result in results.values() for goal in result.goals]
    num_met = sum(goal.met for goal in goals)
    table = Grid("Goals", ("result", "of", "goal", "limit", "measured", "verdict"), lines)
    without = ", ".join(_link(name) for name, result in results.items() if not result.goals)
    return (
        f"{INTRODUCTION}\n{num_met} of {len(goals)} goals are met.\n\n{table.markdown()}\n\n"
        f"Without goals: {without}.\n"
    )


def _lines(name: str, result: BenchResult) -> Iterator[tuple[str, ...]]:
    day = result.ended_at.partition("T")[0]
    for goal in goals_grid(result.goals).lines:
        yield _link(name), day, *goal


def _link(name: str) -> str:
    benchmark, _hardware, _month = name.rsplit("_", 2)
    return f"[{benchmark}]({name}.md)"


if __name__ == "__main__":
    TARGET.write_text(document())
