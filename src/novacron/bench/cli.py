"""novacron bench: measure a server at a URL, or one started for the purpose.

Each benchmark's options are the fields of its scenario. `--scenario FILE` gives them by table.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click
import uvloop
from rich.console import Console

from novacron.bench import compare, random_model, report, result, suite
from novacron.bench.model_shapes import SHAPES, LlamaShape, choose_shape
from novacron.bench.result import BenchResult
from novacron.bench.scenario import Scenario, make_scenario, read_scenarios
from novacron.bench.target import TargetOptions
from novacron.config.quantities import parse_bytes

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

EXIT_GOAL_MISSED = 1

_RESULT_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _comma_list(item: type) -> Callable[[Any], tuple[Any, ...]]:
    """Values separated by commas, or a list from a scenario file."""

    def parse(value: Any) -> tuple[Any, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        try:
            return tuple(item(part) for part in parts)
        except (TypeError, ValueError):
            raise click.BadParameter(
                f"{value!r} is no list of {item.__name__} such as 1,2,4."
            ) from None

    parse.__name__ = f"{item.__name__},..."
    return parse


_SCALARS: Mapping[type, click.ParamType[Any, Any]] = {
    int: click.INT,
    float: click.FLOAT,
    bool: click.BOOL,
    str: click.STRING,
}


def _param_type(annotation: Any) -> click.ParamType[Any, Any]:
    if get_origin(annotation) is tuple:
        return click.types.FuncParamType(_comma_list(get_args(annotation)[0]))
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    return _SCALARS[annotation]


def _scenario_option(kind: type[Scenario], part: Field[Any]) -> click.Option:
    shown = ",".join(map(str, part.default)) if isinstance(part.default, tuple) else part.default
    assert part.default is not MISSING
    flag = f"--{part.name.replace('_', '-')}"
    if part.metadata["repeated"]:
        return click.Option([flag], multiple=True, help=part.metadata["help"])
    return click.Option(
        [flag],
        type=_param_type(get_type_hints(kind)[part.name]),
        default=part.default,
        help=part.metadata["help"] + (f" [default: {shown}]" if shown != "" else ""),
    )


def _target_options(function: Function) -> Function:
    """Which server is measured."""
    decorators = (
        click.option("--url", default="", help="Server to measure; without: one is started."),
        click.option(
            "--model", default="", help="With --url: the model's name. Else: folder to serve."
        ),
        click.option("--api-key", default="", help="Key for the server."),
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Configuration file of the server that is started.",
        ),
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE",
            help="Setting of the server that is started, such as num_threads=1.",
        ),
        click.option(
            "--route", type=click.Choice(["completions", "chat"]), default="completions",
            show_default=True, help="API that is asked.",
        ),
        click.option(
            "--prompts", type=click.Choice(["auto", "tokens", "text"]), default="auto",
            help="Prompts as token ids (exact lengths) or English words. auto: tokens for a "
            "server of our own.",
        ),
    )  # fmt: skip
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def _take_target(values: dict[str, Any]) -> TargetOptions:
    """Remove the options of the target from `values`."""
    names = [part.name for part in fields(TargetOptions) if part.name != "environment"]
    return TargetOptions(environment=os.environ, **{name: values.pop(name) for name in names})


@click.group()
@click.option("--scenario", type=_RESULT_FILE, help="TOML file with a table of options each.")
@click.pass_context
def bench(ctx: click.Context, scenario: Path | None) -> None:
    """Measure a server or the engine; see benchmarks/METHODOLOGY.md for how."""
    tables = read_scenarios(scenario) if scenario else {}
    ctx.obj = tables
    ctx.default_map = {
        name: {key.replace("-", "_"): value for key, value in table.items()}
        for name, table in tables.items()
    }


def _benchmark_command(name: str, benchmark: suite.Benchmark[Any]) -> click.Command:
    @click.command(name, help=benchmark.help)
    @click.option("--output", type=click.Path(path_type=Path), help="JSON file to write.")
    @click.option("--check", is_flag=True, help="Exit with 1 if a goal is missed.")
    @_target_options
    @click.pass_context
    def command(ctx: click.Context, /, output: Path | None, check: bool, **values: Any) -> None:
        target = _take_target(values)
        scenario = make_scenario(benchmark.scenario, values)
        measured = _run(name, lambda progress: benchmark.run(target, scenario, progress))
        Console().print(report.render(measured))
        if output is not None:
            result.save(measured, output)
        _end(ctx, check, [measured])

    command.params += [_scenario_option(benchmark.scenario, f) for f in fields(benchmark.scenario)]
    return command


for _name, _benchmark in {**suite.BENCHMARKS, **suite.BESIDE}.items():
    bench.add_command(_benchmark_command(_name, _benchmark))


@bench.command("suite")
@click.option(
    "--output-dir", type=click.Path(file_okay=False, path_type=Path),
    default="benchmarks/results", show_default=True, help="Folder for the result files.",
)  # fmt: skip
@click.option(
    "--baseline", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with earlier results to compare with.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Exit with 1 if a goal is missed.")
@_target_options
@click.pass_context
def run_suite(
    ctx: click.Context, /, output_dir: Path, baseline: Path | None, check: bool, **values: Any
) -> None:
    """All benchmarks in turn, with a result file and a page each."""
    target = _take_target(values)
    results = _run("suite", lambda progress: suite.run_suite(target, ctx.obj, progress))
    console = Console()
    for one in results:
        console.print(report.render(one))
    console.print(suite.all_goals(results).rich())
    for path in suite.save_all(results, output_dir, baseline):
        console.print(f"wrote {path}")
    _end(ctx, check, results)


@bench.command("compare")
@click.argument("before", type=_RESULT_FILE)
@click.argument("after", type=_RESULT_FILE)
def run_compare(before: Path, after: Path) -> None:
    """Ratios between two result files of one benchmark, with 95 % intervals."""
    for grid in compare.comparison_grids(result.load(before), result.load(after)):
        Console().print(grid.rich())


def _shape_options(function: Function) -> Function:
    """An option for every size of a model, empty: the named shape's."""
    for part in reversed(fields(LlamaShape)):
        kind = _SCALARS[get_type_hints(LlamaShape)[part.name]]
        function = click.option(f"--{part.name.replace('_', '-')}", type=kind)(function)
    return function


@bench.command("make-model")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--shape", type=click.Choice(list(SHAPES)), default="1.1b", show_default=True,
    help="Sizes to start from; the options below replace single ones.",
)  # fmt: skip
@click.option(
    "--dtype", type=click.Choice(random_model.DTYPES), default="bfloat16", show_default=True,
    help="Precision of the weights.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of the weights.")
@click.option(
    "--shard-size", default="2Gi", show_default=True, help="Most bytes of a file of weights."
)
@_shape_options
def make_model(
    folder: Path, shape: str, dtype: random_model.Dtype, seed: int, shard_size: str, **sizes: Any
) -> None:
    """Write a Llama model of random weights, with a tokenizer, into FOLDER."""
    changes = {name: value for name, value in sizes.items() if value is not None}
    chosen = choose_shape(shape, changes)
    console = Console(stderr=True)
    with console.status("make-model") as status:
        random_model.make_model(
            folder,
            chosen,
            dtype=dtype,
            seed=seed,
            shard_bytes=parse_bytes(shard_size),
            progress=lambda fraction: status.update(f"make-model: {fraction:.0%}"),
        )
    console.print(f"wrote {folder}: {chosen.num_parameters / 1e6:,.0f} M parameters, {dtype}")


def _run(name: str, work: Callable[[suite.Progress], Coroutine[Any, Any, T]]) -> T:
    """Run it on a loop of its own, and say on standard error how far it is."""
    console = Console(stderr=True)
    with (
        console.status(name) as status,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_ended_by_sigterm(work(lambda text: status.update(f"{name}: {text}"))))


async def _ended_by_sigterm(work: Coroutine[Any, Any, T]) -> T:
    """SIGTERM cleans up as Ctrl-C does: servers are ended, file systems unmounted."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None


def _end(ctx: click.Context, check: bool, results: list[BenchResult]) -> None:
    missed = [goal for one in results for goal in one.goals if not goal.met]
    if check and missed:
        ctx.exit(EXIT_GOAL_MISSED)
