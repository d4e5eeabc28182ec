"""python -m benchmarks.peers: our engine and its peers on the same weights, in turn.

See METHOD.md for what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.peers import over_http, table
from benchmarks.peers.harness import Harness
from benchmarks.peers.plan import (
    ENGINES,
    PRECISIONS,
    WORKS,
    Contestant,
    PeersScenario,
    parse_contestant,
)
from benchmarks.peers.workers import NotMeasured, Place
from novacron.bench import random_model, report, result
from novacron.bench.machine import usable_cpus
from novacron.bench.machine_peaks import median_peaks
from novacron.bench.measurement import Measurement
from novacron.bench.model_shapes import SHAPES
from novacron.bench.result import BenchResult
from novacron.errors import NovaCronError

HTTP = "http"
_QUICK = {"shape": "0.2b", "rounds": 3, "scenarios": "decode-1,decode-8,prefill-512,start"}
_FULL = {"shape": "1.1b", "rounds": 5, "scenarios": ",".join([*WORKS, HTTP])}


def main() -> None:
    arguments = _parse()
    place = Place(_model_folder(arguments).resolve(), arguments.cache.resolve(), arguments.threads)
    contestants = [parse_contestant(text) for text in arguments.contestants.split(" ")]
    names = [name for name in arguments.scenarios.split(",") if name != HTTP]
    precisions = arguments.precisions.split(",")
    scenario = PeersScenario(
        contestants=tuple(one.name for one in contestants),
        precisions=tuple(precisions),
        scenarios=tuple(arguments.scenarios.split(",")),
        rounds=arguments.rounds,
        threads=arguments.threads,
        seed=arguments.seed,
    )
    measurement = Measurement("peers", scenario, {"model": place.folder.name})
    harness = Harness(place, contestants, rounds=arguments.rounds, seed=arguments.seed, say=say)
    for precision in precisions:
        able = harness.prepare(precision)
        if not arguments.prepare_only:
            harness.run(precision, names, able)
    if arguments.prepare_only:
        return
    measured = _result(measurement, harness, contestants, place)
    if HTTP in arguments.scenarios.split(","):
        measured = _with_http(measured, arguments, place, precisions, contestants)
    _write(measured, harness, contestants, place, arguments)


def _result(
    measurement: Measurement, harness: Harness, contestants: Sequence[Contestant], place: Place
) -> BenchResult:
    weights = table.weights_read(place.folder)
    rows = [
        row
        for case in harness.cases
        for row in table.rows_of(case, contestants, place.threads, weights)
    ]
    readings = [peaks for case in harness.cases for peaks in case.peaks]
    peaks = median_peaks(readings) if readings else None
    return measurement.finish(
        rows=rows,
        columns=table.COLUMNS,
        goals=table.goals_of(harness.cases, contestants, place.threads, weights),
        facts={
            "engines": harness.versions,
            "reads (GB/s), by threads": peaks
            and {str(k): v for k, v in peaks.read_gb_per_s.items()},
            "products (GOP/s)": peaks and peaks.gop_per_s,
            **{f"not measured ({n})": line for n, line in enumerate(harness.not_measured, start=1)},
        },
    )


def _with_http(
    measured: BenchResult,
    arguments: argparse.Namespace,
    place: Place,
    precisions: Sequence[str],
    contestants: Sequence[Contestant],
) -> BenchResult:
    """The same result with the rows of the servers."""
    ours = next((one for one in contestants if one.ours), None)
    if ours is None or not any(one.engine == "llama.cpp" for one in contestants):
        return measured
    for precision in precisions:
        try:
            rows, goals = asyncio.run(
                over_http.compare(place, ours, precision, arguments.rounds, arguments.seed, say)
            )
        except (NovaCronError, NotMeasured) as reason:
            line = f"http {precision}: {reason}".splitlines()[0]
            say(f"  not measured: {line}")
            facts = {**measured.facts, f"not measured (http {precision})": line}
            measured = msgspec.structs.replace(measured, facts=facts)
            continue
        measured = msgspec.structs.replace(
            measured,
            rows=(*measured.rows, *rows),
            goals=(*measured.goals, *goals),
            columns=tuple(dict.fromkeys((*measured.columns, *over_http.COLUMNS))),
        )
    return measured


def _write(
    measured: BenchResult,
    harness: Harness,
    contestants: Sequence[Contestant],
    place: Place,
    arguments: argparse.Namespace,
) -> None:
    weights = table.weights_read(place.folder)
    grid = table.side_by_side(harness.cases, contestants, place.threads, weights)
    model, hardware = place.folder.name, measured.environment.hardware.slug
    theme = "-".join(filter(None, ("peers", model, arguments.label)))
    stem = f"{theme}_{hardware}_{measured.started_at[:4]}{measured.started_at[5:7]}"
    output: Path = arguments.output
    result.save(measured, output / f"{stem}.json")
    page = report.markdown(measured)
    (output / f"{stem}.md").write_text(f"{page}\n## {grid.title}\n\n{grid.markdown()}\n")
    Console().print(grid.rich())
    print(f"wrote {output / stem}.json and .md")


def _model_folder(arguments: argparse.Namespace) -> Path:
    """The folder given, or one that is made once under the cache."""
    if arguments.model is not None:
        return Path(arguments.model)
    folder = Path(arguments.cache) / f"llama-{arguments.shape}"
    if not (folder / "config.json").exists():
        say(f"making a model of {arguments.shape}")
        random_model.make_model(folder, SHAPES[arguments.shape])
    return folder


def _parse() -> argparse.Namespace:
    quick = "--quick" in sys.argv
    defaults = _QUICK if quick else _FULL
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    add: Callable[..., object] = parser.add_argument
    add("--quick", action="store_true", help="a small model, few rounds: minutes")
    add("--model", type=Path, help="folder of a Llama model in bfloat16; without: one is made")
    add("--shape", choices=list(SHAPES), default=defaults["shape"], help="of the model made")
    add("--contestants", default=" ".join(ENGINES), help='"novacron novacron:x=y llama.cpp ..."')
    add("--precisions", default=",".join(PRECISIONS), help="of the weights, by commas")
    add("--scenarios", default=defaults["scenarios"], help=",".join([*WORKS, HTTP]))
    add("--rounds", type=int, default=defaults["rounds"], help="turns that count")
    add("--threads", type=int, default=min(2, usable_cpus()), help="of every engine")
    add("--seed", type=int, default=0, help="of the prompts")
    add("--cache", type=Path, default=Path(".peers-cache"), help="converted weights and logs")
    add("--output", type=Path, default=Path("benchmarks/results"), help="folder for the table")
    add("--label", default="", help="goes into the names of the files, for runs of a part")
    add("--prepare-only", action="store_true", help="make and convert the weights, then end")
    arguments = parser.parse_args()
    unknown = set(arguments.scenarios.split(",")) - {*WORKS, HTTP}
    unknown |= set(arguments.precisions.split(",")) - set(PRECISIONS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return arguments


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except NovaCronError as error:
        sys.exit(str(error))
