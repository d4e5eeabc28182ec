"""What guardians cost a chat, and whether a stream lets anything out that they hold back.

Three servers, one without guardians, one with them and one with observers only, get the same
question one after the other, in turns; a difference is that of one question. The one without is
asked twice: what its answers differ by is the noise that the others have to be seen in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from novacron.bench.guard_chunkings import try_chunkings
from novacron.bench.measurement import Measurement
from novacron.bench.result import BenchResult, Column, Goal, Row, metric, milliseconds, row
from novacron.bench.rounds import turn_order
from novacron.bench.scenario import GuardsScenario
from novacron.bench.target import Target, TargetOptions, check, open_target
from novacron.bench.transcript import Transcript
from novacron.demo.tasks import held_out_examples

OFF, AGAIN, GUARDS, OBSERVERS = "none", "none, again", "guardians", "observers"

_ENFORCING: Final = (
    {"kind": "pii"},
    {"kind": "secrets"},
    {"kind": "injection", "stage": ["input", "stream"]},
)
_OBSERVING: Final = (
    *({**one, "mode": "observe", "stage": ["input", "output"]} for one in _ENFORCING),
    {"kind": "degeneration"},
    {"kind": "intent"},
)
_PAUSE_S: Final = 0.05  # for what observers do once an answer has gone out
_GOAL_TTFT_MS: Final = 20.0
_GOAL_OBSERVERS_MS: Final = 1.0
_COLUMNS: Final = (
    Column("ttft", "p50"),
    Column("ttft", "p95"),
    Column("added_ttft", "p50"),
    Column("added_ttft", "p95"),
    Column("e2e", "p50"),
    Column("added_e2e", "p50"),
    Column("added_e2e", "p95"),
)

Progress = Callable[[str], None]
Answers = Mapping[str, Transcript]


async def run(options: TargetOptions, scenario: GuardsScenario, progress: Progress) -> BenchResult:
    """Raises RequestFailed if a question fails."""
    progress("starting three servers")
    async with _servers(options) as servers:
        measurement = Measurement("guards", scenario, servers[OFF].description)
        rounds: list[Answers] = []
        with measurement.client_cost():
            for turn in range(-1, scenario.repeats):  # the first warms up
                progress(f"round {turn + 1} of {scenario.repeats}")
                rounds += [
                    await _ask_all(servers, question, scenario, turn + place)
                    for place, question in enumerate(_questions(scenario, turn))
                ]
    progress(f"{scenario.chunkings} chunkings")
    tried = await asyncio.to_thread(try_chunkings, scenario.chunkings, scenario.seed)
    counted = rounds[len(scenario.tasks) :]
    rows = [_row(name, counted) for name in (OFF, AGAIN, GUARDS, OBSERVERS)]
    return measurement.finish(
        rows=rows,
        columns=_COLUMNS,
        goals=[
            *_goals(rows),
            Goal(
                name=f"leaks in {tried.num_chunkings} random chunkings",
                limit=0,
                better="lower",
                value=tried.num_leaks,
            ),
        ],
        facts={
            "answers that differ from those without guardians": {
                name: sum(one[name].text != one[OFF].text for one in counted)
                for name in (AGAIN, GUARDS, OBSERVERS)
            },
            "questions": len(counted),
            "things to mask in the chunkings": tried.num_spans,
            "most characters held back in the chunkings": tried.most_held,
        },
    )


@contextlib.asynccontextmanager
async def _servers(options: TargetOptions) -> AsyncIterator[dict[str, Target]]:
    """By what they have; `AGAIN` is the same as `OFF`."""
    async with contextlib.AsyncExitStack() as stack:
        servers = {}
        for name, guardians in ((OFF, ()), (GUARDS, _ENFORCING), (OBSERVERS, _OBSERVING)):
            setting = (f"guardians={json.dumps(guardians)}",) if guardians else ()
            own = replace(options, route="chat", settings=(*options.settings, *setting))
            servers[name] = await stack.enter_async_context(open_target(own))
            await servers[name].client.open_connections(1)
        yield {**servers, AGAIN: servers[OFF]}


def _questions(scenario: GuardsScenario, turn: int) -> list[list[dict[str, str]]]:
    """One of each task; new ones each turn."""
    seed = scenario.seed * 1_000_003 + turn
    return [
        [
            {"role": message.role, "content": message.content}
            for message in held_out_examples(task, 1, seed)[0].messages
        ]
        for task in scenario.tasks
    ]


async def _ask_all(
    servers: Mapping[str, Target],
    question: list[dict[str, str]],
    scenario: GuardsScenario,
    turn: int,
) -> Answers:
    """Each server's first answer to it comes without a cached prompt but for `AGAIN`, so the
    question is asked once beforehand, uncounted."""
    answers = {}
    for warming in (True, False):
        for name, target in turn_order(tuple(servers.items()), turn):
            answers[name] = await target.chat(target.chat_body(question, scenario.max_tokens))
            if not warming or name == OBSERVERS:
                await asyncio.sleep(_PAUSE_S)
    check(list(answers.values()))
    return answers


def _row(name: str, rounds: Sequence[Answers]) -> Row:
    added = {
        "added_ttft": milliseconds([one[name].ttft_s - one[OFF].ttft_s for one in rounds]),
        "added_e2e": milliseconds([one[name].e2e_s - one[OFF].e2e_s for one in rounds]),
    }
    return row(
        {"guardians": name},
        ttft=milliseconds([one[name].ttft_s for one in rounds]),
        e2e=milliseconds([one[name].e2e_s for one in rounds]),
        tokens=metric("tokens", "neither", [one[name].num_output_tokens for one in rounds]),
        **({} if name == OFF else added),
    )


def _goals(rows: Sequence[Row]) -> list[Goal]:
    by_name = {str(one.labels["guardians"]): one.metrics for one in rows}
    noise = by_name[AGAIN]["added_e2e"].summary.p50
    return [
        Goal(
            name="time to first token that guardians add, p95",
            limit=_GOAL_TTFT_MS,
            better="lower",
            value=by_name[GUARDS]["added_ttft"].summary.p95,
            unit="ms",
        ),
        Goal(
            name="whole answer that observers add beyond noise, p50",
            limit=_GOAL_OBSERVERS_MS,
            better="lower",
            value=by_name[OBSERVERS]["added_e2e"].summary.p50 - noise,
            unit="ms",
        ),
    ]
