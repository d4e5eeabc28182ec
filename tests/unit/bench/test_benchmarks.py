"""Every benchmark against a server that recites: what is asked, and what a result holds."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from novacron.bench import accuracy, speculation, startup, suite, target
from novacron.bench.http_client import HttpClient
from novacron.bench.result import BenchResult, load, save
from novacron.bench.scenario import make_scenario
from novacron.bench.server import ServerPlan, running_server
from novacron.bench.suite import BENCHMARKS, run_suite, save_all
from novacron.bench.target import LocalEngine, TargetOptions, local_engine, open_target
from novacron.demo.tasks import held_out_examples
from novacron.errors import ConfigError, EngineDead, RequestFailed
from novacron.testing.fake_engine_client import FakeEngineClient
from novacron.testing.fake_openai_server import FakeOpenAIServer

FAKE = (sys.executable, "-m", "novacron.testing.fake_openai_server")


def quiet(text: str) -> None:
    pass


def options(server: FakeOpenAIServer, **changes: Any) -> TargetOptions:
    return TargetOptions(url=server.url, environment=os.environ, **changes)


async def run(name: str, where: TargetOptions, tmp_path: Path, **scenario: Any) -> BenchResult:
    """The result, after a trip through its file."""
    benchmark = BENCHMARKS[name]
    result = await benchmark.run(where, make_scenario(benchmark.scenario, scenario), quiet)
    save(result, tmp_path / "result.json")
    loaded = load(tmp_path / "result.json")
    assert loaded == result
    assert loaded.environment.hardware.num_usable_cpus >= 1
    assert loaded.started_at <= loaded.ended_at
    return loaded


@contextlib.asynccontextmanager
async def reciting_client(engine: LocalEngine) -> AsyncIterator[FakeEngineClient]:
    client = FakeEngineClient(engine.tokenizer())
    yield client
    await client.close()


@pytest.fixture
def fake_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[TargetOptions], LocalEngine]:
    """Our own server is the reciting one, in a process of its own."""

    def fake_engine(given: TargetOptions) -> LocalEngine:
        engine = local_engine(given)
        return replace(engine, plan=ServerPlan((), given.environment, FAKE))

    monkeypatch.setattr(target, "local_engine", fake_engine)
    monkeypatch.setattr(startup, "local_engine", fake_engine)
    monkeypatch.setattr(startup, "_IMPORTED", {"import of the API process": "json"})
    monkeypatch.setattr(speculation, "engine_client", reciting_client)
    return fake_engine


async def test_latency(server: FakeOpenAIServer, tmp_path: Path) -> None:
    result = await run(
        "latency", options(server), tmp_path, prompt_tokens=(4, 8), output_tokens=(3,), repeats=2
    )
    assert [row.labels for row in result.rows] == [
        {"prompt tokens": 4, "output tokens": 3},
        {"prompt tokens": 8, "output tokens": 3},
    ]
    metrics = result.rows[0].metrics
    assert {name: metrics[name].summary.count for name in metrics} == {
        "ttft": 2, "e2e": 2, "prompt": 2, "tpot": 2, "itl": 4,
    }  # fmt: skip
    assert metrics["ttft"].summary.p50 <= metrics["e2e"].summary.p50
    breakdown = result.facts["where a request's time goes (mean ms)"]
    assert breakdown["queue"] == pytest.approx(4)
    assert "share of a core taken by the client" in result.facts
    asked = server.bodies[-1]
    assert (asked["max_tokens"], asked["temperature"], asked["ignore_eos"]) == (3, 0, True)
    assert len(server.bodies) == 2 + 4


async def test_latency_over_chat(server: FakeOpenAIServer, tmp_path: Path) -> None:
    await run(
        "latency", options(server, route="chat"), tmp_path,
        prompt_tokens=(4,), output_tokens=(2,), repeats=1,
    )  # fmt: skip
    [message] = server.bodies[-1]["messages"]
    assert len(message["content"].split()) == 4


async def test_throughput_of_a_foreign_server(server: FakeOpenAIServer, tmp_path: Path) -> None:
    result = await run(
        "throughput", options(server), tmp_path,
        num_streams=(4, 2), prompt_tokens=4, output_tokens=5, repeats=3,
    )  # fmt: skip
    assert [row.labels for row in result.rows] == [
        {"through": "http", "streams": 4},
        {"through": "http", "streams": 2},
    ]
    assert result.rows[0].metrics["output_rate"].summary.count == 3
    steps = result.facts["mean step at 4 streams, prefill included (ms)"]
    assert steps == {"http": pytest.approx(4)}
    prompts = [body["prompt"] for body in server.bodies]
    assert len(set(prompts)) == len(prompts) == 4 * (4 + 2)
    assert result.goals == ()
    assert server.num_connections == 4


async def test_the_engine_behind_a_url_cannot_be_driven_alone(
    server: FakeOpenAIServer, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot be driven alone"):
        await run("throughput", options(server), tmp_path, through="engine")


async def test_serve(server: FakeOpenAIServer, tmp_path: Path) -> None:
    result = await run(
        "serve", options(server), tmp_path,
        rates=(200.0, float("inf")), num_requests=6, num_prefixes=2, prefix_tokens=8,
        prompt_tokens=3, output_tokens=4,
    )  # fmt: skip
    assert [row.labels["rate (1/s)"] for row in result.rows] == [200.0, "inf"]
    for row in result.rows:
        values = {name: metric.summary.mean for name, metric in row.metrics.items()}
        assert (values["successful"], values["failed"]) == (6, 0)
        assert (values["input"], values["output"]) == (120, 24)
        assert values["lateness"] >= 0
    prefixes = {body["prompt"].rsplit(" ", 3)[0] for body in server.bodies[-6:]}
    assert len(prefixes) <= 2


async def test_serve_counts_failures_and_fails_only_if_nothing_succeeds(
    server: FakeOpenAIServer, tmp_path: Path
) -> None:
    server.status = 503
    with pytest.raises(RequestFailed, match="No request succeeded: status 503: go away"):
        await run("serve", options(server), tmp_path, rates=(float("inf"),), num_requests=2)


async def test_serve_replays_a_trace(server: FakeOpenAIServer, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    line = '{"timestamp": %d, "input_length": 6, "output_length": 3, "hash_ids": [1]}\n'
    trace.write_text(line % 0 + line % 20)
    result = await run(
        "serve", options(server), tmp_path, trace=str(trace), rates=(2.0,), num_requests=9
    )
    assert result.rows[0].metrics["successful"].summary.mean == 2
    with pytest.raises(ConfigError, match="cannot be read"):
        await run("serve", options(server), tmp_path, trace="/nowhere", rates=(1.0,))


async def test_cache(server: FakeOpenAIServer, tmp_path: Path) -> None:
    result = await run(
        "cache", options(server), tmp_path, prefix_tokens=(32, 1024), repeats=2, output_tokens=2
    )
    cold, same, shared = result.rows[:3]
    assert [row.labels["cache"] for row in (cold, same, shared)] == [
        "cold",
        "same prompt",
        "same prefix",
    ]
    assert cold.metrics["cached"].summary.p50 == 0
    assert same.metrics["cached"].summary.p50 == 16
    assert same.metrics["same_text"].summary.mean == 1
    assert len(result.goals) == 3
    first, again, other = (body["prompt"] for body in server.bodies[-3:])
    assert first == again != other
    assert first.split()[:1024] == other.split()[:1024]


async def test_a_cache_that_changes_the_text_misses_its_goal(
    server: FakeOpenAIServer, tmp_path: Path
) -> None:
    server.answer = lambda body: f"answer {len(server.bodies)}"
    result = await run("cache", options(server), tmp_path, prefix_tokens=(8,), repeats=2)
    [goal] = result.goals
    assert (goal.value, goal.met) == (0, False)


async def test_accuracy_counts_what_is_right(server: FakeOpenAIServer, tmp_path: Path) -> None:
    facts = {
        example.messages[-1].content: example.fact
        for example in held_out_examples("capitals", 6, 0)
    }
    known = dict(list(facts.items())[:3])
    server.answer = lambda body: known.get(body["messages"][-1]["content"], "no idea")
    floors = tmp_path / "floors.json"
    floors.write_text('{"capitals": 0.9, "sort": 0.5}')
    result = await run(
        "accuracy", options(server), tmp_path,
        tasks=("capitals",), num_examples=6, floors=str(floors),
    )  # fmt: skip
    [row] = result.rows
    right = sum(row.metrics["accuracy"].samples)
    assert right == sum(question in known for question in facts)
    assert row.metrics["least"].summary.mean < right / 6 < row.metrics["most"].summary.mean
    [goal] = result.goals
    assert (goal.name, goal.met) == ("accuracy on capitals", False)


async def test_accuracy_refuses_unknown_tasks_and_bad_floors(
    server: FakeOpenAIServer, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="No task is named poetry"):
        await run("accuracy", options(server), tmp_path, tasks=("poetry",))
    for text in ("[1]", "{", '{"capitals": "x"}', '{"poetry": 1}'):
        (tmp_path / "floors.json").write_text(text)
        with pytest.raises(ConfigError, match=r"no file of floors|No task is named"):
            accuracy.read_floors(tmp_path / "floors.json")


@pytest.mark.usefixtures("fake_process")
async def test_startup(tmp_path: Path) -> None:
    result = await run("startup", TargetOptions(environment=os.environ), tmp_path, repeats=1)
    medians = {row.labels["what"]: row.metrics["wall"].summary.p50 for row in result.rows}
    assert 0 < medians["serve to /health"] <= medians["serve to /ready"]
    assert medians["serve to /ready"] < medians["serve to first token"]
    assert medians["phase: import"] == 0.5
    assert result.row(what="start of Python alone").metrics["cpu"].summary.p50 > 0
    assert len(result.goals) == 2


@pytest.mark.usefixtures("fake_process")
async def test_resources(tmp_path: Path) -> None:
    result = await run(
        "resources", TargetOptions(environment=os.environ), tmp_path,
        idle_seconds=0.1, num_streams=2, prompt_tokens=4, output_tokens=4, repeats=2,
    )  # fmt: skip
    idle = result.row(process="together", state="idle")
    busy = result.row(process="API process", state="busy")
    assert idle.metrics["rss"].summary.p50 > 1
    assert busy.metrics["cpu_per_1k_tokens"].summary.count == 2
    assert result.facts["KV bytes per token"] > 0


async def test_resources_need_a_server_of_our_own(server: FakeOpenAIServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave out --url"):
        await run("resources", options(server), tmp_path)


async def test_a_server_that_ends_early_is_told_with_its_last_words() -> None:
    command = (sys.executable, "-c", "raise SystemExit('no model here')")
    async with running_server(ServerPlan((), os.environ, command)) as dead:
        with pytest.raises(EngineDead, match=r"exit code 1(?s:.*)no model here"):
            await dead.wait_for(HttpClient(dead.url), "/ready")


async def test_options_that_contradict_each_other(server: FakeOpenAIServer) -> None:
    with pytest.raises(ConfigError, match="vocabulary"):
        async with open_target(options(server, prompts="tokens")):
            pass
    with pytest.raises(ConfigError, match="is no setting"):
        local_engine(TargetOptions(settings=("speed=9",), environment={}))


def test_settings_reach_engine_and_server_alike() -> None:
    engine = local_engine(TargetOptions(settings=("num-threads=1",), environment={"A": "b"}))
    assert engine.config.model.num_threads == 1
    assert engine.plan.environment == {"A": "b", "NOVACRON_NUM_THREADS": "1"}


async def test_cache_policy(tmp_path: Path) -> None:
    result = await run(
        "cache-policy",
        TargetOptions(environment={}),
        tmp_path,
        workloads=("chat", "loop"),
        shares=(0.1,),
        num_requests=300,
        repeats=2,
    )
    chat = {
        row.labels["policy"]: row.metrics for row in result.rows if "chat" in row.labels.values()
    }
    assert list(chat) == [
        "lru", "lfu", "arc", "learned", "told the chances", "told who returns", "optimum",
    ]  # fmt: skip
    best = chat["optimum"]["hit_rate"].samples
    assert len(best) == 2
    for name, metrics in chat.items():
        assert all(a <= b for a, b in zip(metrics["hit_rate"].samples, best, strict=True)), name
    assert [goal.name for goal in result.goals] == [
        "learned of the best plain policy: chat, size 0.1",
        "learned of the optimum: chat, size 0.1",
    ]


async def test_cache_policy_refuses_what_there_is_not(tmp_path: Path) -> None:
    for settings, reason in (
        ({"workloads": ("dance",)}, "no workload 'dance'"),
        ({"policies": ("magic",)}, "no eviction policy 'magic'"),
    ):
        with pytest.raises(ConfigError, match=reason):
            await run("cache-policy", TargetOptions(environment={}), tmp_path, **settings)


@pytest.mark.usefixtures("fake_process")
async def test_speculation(tmp_path: Path) -> None:
    result = await run(
        "speculation",
        TargetOptions(environment=os.environ),
        tmp_path,
        num_streams=(1, 3),
        num_questions=2,
        repeats=2,
    )
    assert [row.labels for row in result.rows] == [
        {"method": method, "streams": streams} for streams in (1, 3) for method in ("off", "ngram")
    ]
    off = result.row(method="off", streams=3)
    assert off.metrics["ratio"].samples == (1.0, 1.0)
    assert off.metrics["output_rate"].summary.p50 > 0
    assert "right" not in off.metrics, "nothing was guessed"
    assert result.goals[0].met, "the same text was recited to all"
    assert result.target["speculation"]["ngram"]["speculative_method"] == "ngram"


async def test_speculation_refuses_what_it_cannot_compare(tmp_path: Path) -> None:
    here = TargetOptions(environment=os.environ)
    for settings, reason in (
        ({"methods": ("ngram", "magic")}, "no method magic"),
        ({"methods": ("draft",)}, "is the model itself"),
        ({"tasks": ("dance",)}, "No task is named dance"),
    ):
        with pytest.raises(ConfigError, match=reason):
            await run("speculation", here, tmp_path, **settings)


@pytest.mark.usefixtures("fake_process")
async def test_the_suite_runs_in_order_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {
        "latency": {"prompt-tokens": [4], "output-tokens": [2], "repeats": 1},
        "accuracy": {"tasks": ["capitals"], "num-examples": 2},
        "cache-policy": {"workloads": ["chat"], "num-requests": 60, "repeats": 1},
        "routing": {"num-replicas": 2, "rate": 50.0, "seconds": 0.3, "num-prefixes": 2},
        "serve": {"rates": [1000.0], "num-requests": 2, "prefix-tokens": 0},
    }
    some = {name: BENCHMARKS[name] for name in BENCHMARKS if name in tables}
    monkeypatch.setattr(suite, "BENCHMARKS", some)  # all of them have tests of their own
    results = await run_suite(TargetOptions(environment=os.environ), tables, quiet)
    assert [one.benchmark for one in results] == list(tables)
    first = save_all(results, tmp_path / "first", None)
    assert len(first) == 2 * len(tables) + 1
    assert all(path.exists() for path in first)
    slug = results[0].environment.hardware.slug
    assert first[0].name.startswith(f"latency_{slug}_2")
    second = save_all(results, tmp_path / "second", tmp_path / "first")
    assert "after / before" in second[-1].read_text()


async def test_a_table_for_no_benchmark_is_refused() -> None:
    with pytest.raises(ConfigError, match="no benchmark speed"):
        await run_suite(TargetOptions(environment={}), {"speed": {}}, quiet)
