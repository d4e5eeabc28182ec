"""`novacron serve` and llama-server under the same client: users that start together.

Both servers live through all rounds and take turns; the client is that of `novacron bench`.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from benchmarks.peers.adapters.settings import SETTINGS
from benchmarks.peers.plan import Contestant
from benchmarks.peers.workers import NotMeasured, Place, llama_server
from novacron.bench.contestants import OverHttp
from novacron.bench.http_client import HttpClient
from novacron.bench.result import Column, Goal, Row, metric, milliseconds
from novacron.bench.rounds import Batch, turn_order
from novacron.bench.server import ServerPlan, running_server
from novacron.bench.statistics import percentile
from novacron.bench.target import Target, TargetOptions, first_model, open_target, token_prompts
from novacron.bench.workload import PromptMaker, make_prompts
from novacron.engine.tokenization import Tokenizer

USERS = (1, 8, 16)
PROMPT_TOKENS = 64
OUTPUT_TOKENS = 48
OURS, THEIRS = "novacron serve", "llama-server"
COLUMNS = (Column("total_rate"), Column("ttft"), Column("ttft", "p95"))

Round = Mapping[str, Batch]


async def compare(
    place: Place,
    ours: Contestant,
    precision: str,
    rounds: int,
    seed: int,
    say: Callable[[str], None],
) -> tuple[list[Row], list[Goal]]:
    """Rows and goals by number of users. Raises NotMeasured and NovaCron's errors."""
    maker = token_prompts(Tokenizer.load(place.folder))
    done: dict[int, list[Round]] = {users: [] for users in USERS}
    async with contextlib.AsyncExitStack() as stack:
        say(f"{precision}: starting both servers")
        theirs = await stack.enter_async_context(_llama_server(place, precision, maker))
        targets = {
            OURS: await stack.enter_async_context(_novacron(place, ours, precision)),
            THEIRS: theirs,
        }
        for users, batches in done.items():
            for turn in range(-1, rounds):
                prompts = make_prompts(maker, hash((seed, users, turn)), users, PROMPT_TOKENS)
                batch = {}
                for name in turn_order((OURS, THEIRS), turn):
                    targets[name].client.close()  # llama-server ends some after an answer, unsaid
                    cpu_s = time.process_time()
                    transcripts = await OverHttp(targets[name]).run_batch(prompts, OUTPUT_TOKENS)
                    batch[name] = Batch(transcripts, time.process_time() - cpu_s)
                rates = ", ".join(f"{name} {batch[name].total_rate:.1f}" for name in targets)
                say(f"{precision} http {users} users, turn {turn + 1} (total tok/s): {rates}")
                if turn >= 0:
                    batches.append(batch)
    rows = [row for users, batches in done.items() for row in rows_of(precision, users, batches)]
    goals = [
        goal
        for users, batches in done.items()
        if users > 1
        for goal in goals_of(precision, users, batches)
    ]
    return rows, goals


def rows_of(precision: str, users: int, rounds: Sequence[Round]) -> list[Row]:
    rows = []
    for name in (OURS, THEIRS):
        batches = [one[name] for one in rounds]
        ttfts_s = [t.ttft_s for batch in batches for t in batch.transcripts]
        ratios = [one[name].total_rate / one[THEIRS].total_rate for one in rounds]
        metrics = {
            "total_rate": metric("tok/s", "higher", [batch.total_rate for batch in batches]),
            "rate": metric("tok/s", "higher", [batch.output_rate for batch in batches]),
            "ttft": milliseconds(ttfts_s),
            "to_best_peer": metric("x", "higher", ratios),
        }
        labels: dict[str, str | int | float] = {
            "scenario": f"http-{users}", "weights": precision, "engine": name,
        }  # fmt: skip
        rows.append(Row(labels=labels, metrics=metrics))
    return rows


def goals_of(precision: str, users: int, rounds: Sequence[Round]) -> list[Goal]:
    """Twice the tokens of llama-server, and nobody waits longer for the first one."""
    ratios = [one[OURS].total_rate / one[THEIRS].total_rate for one in rounds]
    p95s = {
        name: percentile([t.ttft_s for one in rounds for t in one[name].transcripts], 95)
        for name in (OURS, THEIRS)
    }
    case = f"http-{users} {precision}"
    return [
        Goal(name=f"{case}: total tokens to llama-server", limit=2.0, better="higher",
             value=statistics.median(ratios), unit="x"),
        Goal(name=f"{case}: TTFT p95 to llama-server", limit=1.0, better="lower",
             value=p95s[OURS] / p95s[THEIRS], unit="x"),
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def _novacron(place: Place, ours: Contestant, precision: str) -> AsyncIterator[Target]:
    settings = {
        "num_threads": place.threads,
        "max_num_seqs": max(USERS),
        "max_model_len": PROMPT_TOKENS + OUTPUT_TOKENS + 16,
        **SETTINGS[precision],
        **ours.options,
    }
    options = TargetOptions(
        model=str(place.folder),
        settings=tuple(f"{name}={_written(value)}" for name, value in settings.items()),
        environment=os.environ,
    )
    async with open_target(options) as target:
        yield target


def _written(value: object) -> str:
    """As configuration files have it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextlib.asynccontextmanager
async def _llama_server(place: Place, precision: str, maker: PromptMaker) -> AsyncIterator[Target]:
    program = llama_server()
    weights = place.cache / f"{place.folder.resolve().name}-{precision}.gguf"
    for needed in (program, weights):
        if not needed.exists():
            raise NotMeasured(f"{needed.name} is missing; run `make bench-peers`")
    streams = max(USERS)
    arguments = {
        "--model": weights,
        "--threads": place.threads,
        "--threads-batch": place.threads,
        "--parallel": streams,
        "--ctx-size": streams * 256,
    }
    plan = ServerPlan(
        tuple(str(part) for pair in arguments.items() for part in pair),
        os.environ,
        command=(str(program),),
    )
    async with running_server(plan) as server:
        client = HttpClient(server.url)
        try:
            await server.wait_for(client, "/health")
            yield Target(
                client, await first_model(client), maker, "completions",
                description={}, server=server, engine=None,
            )  # fmt: skip
        finally:
            client.close()
