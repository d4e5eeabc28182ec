"""`novacron cluster`, over a server's answers."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from novacron.cli.api_client import ApiClient
from novacron.cli.cluster.frame import frame, sparkline
from novacron.cli.cluster.readings import Reading, pace
from novacron.cli.cluster.top import View
from novacron.observability.call_timer import CallTimer
from novacron.observability.metrics import Metrics
from novacron.observability.prometheus import prometheus_text
from novacron.observability.snapshots import EngineSnapshot
from novacron.records.output import EngineStats, RequestOutput
from novacron.records.request import FinishReason

SCALE = "/api/v1/llm/cluster/scale"
STATUS = "GET /api/v1/llm/cluster/status"
WORKERS = "/api/v1/llm/cluster/workers"


def replica(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "replica_id": f"replica-{number}", "state": "ready", "epoch": 0, "host": "",
        "pid": 40 + number, "num_running": 3, "num_waiting": 1, "queued_tokens": 1200,
        "kv_usage": 0.25, "hit_rate": None, "routed": {"load": 1, "prefix": 3}, "prompt_tokens": 0,
        "generation_tokens": 0, **changes,
    }  # fmt: skip


def status(*replicas: dict[str, Any]) -> dict[str, Any]:
    return {"cluster": {"status": "healthy", "num_restarts": 2}, "replicas": list(replicas)}


def test_status_names_the_hosts_of_ranks(novacron, api) -> None:
    ranks = [
        {"rank": rank, "host": host, "stage": rank, "steps": 1234, "step_s": 3.0, "waited_s": 0.5,
         "sent_bytes": 2**20}
        for rank, host in enumerate(("", "node-2"))
    ]  # fmt: skip
    api.routes[STATUS] = status(replica(0, ranks=ranks))
    lines = novacron("cluster", "status", "--url", api.url).output.splitlines()
    first, second = (line.split() for line in lines[-2:])
    assert first[:4] == ["replica-0", "rank", "0", "-"]
    assert second[2:] == ["1", "node-2", "1", "1,234", "2.5", "s", "0.5", "s", "1.0", "MiB"]


def test_status_is_a_row_for_each_replica(novacron, api) -> None:
    api.routes[STATUS] = status(
        replica(0), replica(1, state="loading", host="node-1", pid=None, hit_rate=0.5)
    )
    result = novacron("cluster", "status", "--url", api.url)
    head, titles, first, second = result.output.splitlines()
    assert head == "healthy: 1 of 2 replicas are ready, 2 restarts"
    assert titles.split()[:5] == ["REPLICA", "STATE", "EPOCH", "HOST", "PID"]
    assert first.split() == ["replica-0", "ready", "0", "-", "40", "3", "1", "1,200", "25%", "-"]
    assert second.split()[:5] == ["replica-1", "loading", "0", "node-1", "-"]
    as_json = novacron("cluster", "status", "--url", api.url, "--json")
    assert '"num_restarts": 2' in as_json.output


def test_drain_says_what_became_of_it(novacron, api) -> None:
    answer = {"replica": replica(1, state="unloaded"), "finished": False}
    api.routes[f"POST {WORKERS}/replica-1/drain"] = answer
    result = novacron("cluster", "drain", "replica-1", "--url", api.url, "--timeout", "5")
    assert result.exit_code == 1
    assert result.output == ("replica-1 is unloaded (epoch 0); some of its requests were cut off\n")
    assert api.asked[-1] == (
        f"{WORKERS}/replica-1/drain", {"restart": False, "force": False, "timeout": 5.0},
    )  # fmt: skip
    api.routes[f"POST {WORKERS}/replica-1/drain"] = (409, {"error": {"message": "the last one"}})
    refused = novacron("cluster", "drain", "replica-1", "--url", api.url)
    assert (refused.exit_code, "the last one" in refused.output) == (1, True)


def test_restart_takes_one_after_the_other(novacron, api) -> None:
    api.routes[STATUS] = status(replica(0), replica(1))
    for number in (0, 1):
        answer = {"replica": replica(number, epoch=1), "finished": True}
        api.routes[f"POST {WORKERS}/replica-{number}/drain"] = answer
    result = novacron("cluster", "restart", "--url", api.url)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "replica-0 is ready (epoch 1)", "replica-1 is ready (epoch 1)",
    ]  # fmt: skip
    assert [path for path, _ in api.asked[1:]] == [
        f"{WORKERS}/replica-0/drain", f"{WORKERS}/replica-1/drain",
    ]  # fmt: skip


def test_scale_lists_what_there_is_then(novacron, api) -> None:
    api.routes[f"POST {SCALE}"] = status(replica(0), replica(1))
    result = novacron("cluster", "scale", "2", "--url", api.url, "--timeout", "5")
    assert result.output.splitlines() == [
        "replica-0 is ready (epoch 0)", "replica-1 is ready (epoch 0)",
    ]  # fmt: skip
    assert api.asked[-1] == (SCALE, {"replica_count": 2, "timeout": 5.0})
    assert novacron("cluster", "scale", "0", "--url", api.url).exit_code == 2


def test_resume(novacron, api) -> None:
    api.routes[f"POST {WORKERS}/replica-1/resume"] = {"replica": replica(1, epoch=3)}
    result = novacron("cluster", "resume", "replica-1", "--url", api.url)
    assert result.output == "replica-1 is ready (epoch 3)\n"


def metrics_after(*first_tokens_s: float) -> str:
    """The server's own text, after calls whose first token took so long."""
    metrics = Metrics()
    for seconds in first_tokens_s:
        metrics.first_token.observe(seconds)
        end = RequestOutput(request_id="r", finish_reason=FinishReason.STOP)
        CallTimer(metrics, 0.0, 1).observe(end)
    engine = EngineSnapshot(
        state="ready", states=("ready",), stats=EngineStats(), spec=None, num_restarts=0,
        variants=(),
    )  # fmt: skip
    return prometheus_text(metrics, engine, "m").decode()


def test_top_fits_a_terminal_of_80_columns() -> None:
    busy = replica(0, num_running=64, num_waiting=128, queued_tokens=1_234_567, hit_rate=0.75)
    now = Reading.of(0.0, status(busy, replica(1, state="draining")), "")
    for width, is_wide in ((80, False), (120, True)):
        out = io.StringIO()
        Console(file=out, width=width).print(frame("http://127.0.0.1:8080", now, None, ()))
        _head, _, titles, first, second, *_ = out.getvalue().splitlines()
        assert titles.split()[:6] == ["replica", "state", "epoch", "run", "wait", "queued"]
        assert first.split()[:6] == ["replica-0", "ready", "0", "64", "128", "1,234,567"]
        assert second.split()[:2] == ["replica-1", "draining"]
        assert first.rstrip().endswith("prefix 75%, load 25%") is is_wide


def test_speeds_are_of_the_time_between_two_readings() -> None:
    before = Reading.of(10.0, status(replica(0, generation_tokens=100)), metrics_after(9.0))
    after = Reading.of(
        14.0,
        status(replica(0, generation_tokens=500, prompt_tokens=80), replica(1)),
        metrics_after(9.0, *[0.02] * 99, 0.4),
    )
    speed = pace(before, after)
    assert speed.tokens_per_s == {"replica-0": 100.0, "replica-1": 0.0}
    assert speed.prompt_tokens_per_s["replica-0"] == 20.0
    assert speed.requests_per_s == 25.0
    assert round(speed.first_token_s or 0, 4) == 0.0238
    assert 0.01 < (speed.first_token_p95_s or 0) <= 0.025  # the bucket of 20 ms
    assert speed.inter_token_s is None


def test_a_server_that_was_started_anew_counts_from_nothing() -> None:
    before = Reading.of(0.0, status(replica(0, generation_tokens=900)), metrics_after(*[1.0] * 9))
    after = Reading.of(1.0, status(replica(0, generation_tokens=5)), metrics_after(1.0))
    speed = pace(before, after)
    assert (speed.all_tokens_per_s, speed.requests_per_s, speed.first_token_s) == (0.0, 0.0, None)


def test_the_picture_goes_on_while_the_server_does_not_answer(api) -> None:
    api.routes[STATUS] = status(replica(0), replica(1, state="dead"))
    text = metrics_after(0.02)
    clock = iter(range(100))
    with ApiClient(api.url, None) as client:
        client.text = lambda path: text  # type: ignore[method-assign]
        view = View(client, 10.0, lambda: float(next(clock)))
        assert "measuring" in shown(view.look())
        api.routes[STATUS] = status(replica(0, generation_tokens=1234), replica(1, state="dead"))
        second = shown(view.look())
        assert "1,234 tokens/s" in second
        assert "1 of 2 replicas ready" in second
        assert "prefix 75%, load 25%" in second
        api.routes[STATUS] = (503, {"error": {"message": "gone for now"}})
        third = shown(view.look_again())
        assert "1,234 tokens/s" in third
        assert "gone for now" in third


def test_ranks_and_links_stand_below_the_replicas(api) -> None:
    def at(steps: int) -> dict[str, Any]:
        rank = {
            "rank": 1, "stage": 0, "steps": steps, "meetings": steps * 44,
            "sent_bytes": steps * 2048, "waited_s": steps * 0.025, "step_s": steps * 0.04,
            "host": "node-2",
        }  # fmt: skip
        link = {
            "place": "node-1:9091", "round_trip_s": 0.0021, "sent_bytes": 5000,
            "received_bytes": 3 * 2**20, "resent": 4, "dropped": 0, "lost": 2,
        }  # fmt: skip
        between = {"rank": 0, "peer": 1, "link": link | {"place": "node-2:9092", "lost": 0}}
        return status(
            replica(0, ranks=[rank], rank_links=[between]), replica(1, link=link, ranks=[])
        )

    api.routes[STATUS] = at(10)
    clock = iter(range(100))
    with ApiClient(api.url, None) as client:
        client.text = lambda path: metrics_after(0.02)  # type: ignore[method-assign]
        view = View(client, 10.0, lambda: float(next(clock)))
        view.look()
        api.routes[STATUS] = at(30)
        lines = shown(view.look()).splitlines()
    [rank] = [line.split() for line in lines if "rank 1" in line]
    assert rank[3:] == ["node-2", "0", "20.0", "44", "40", "KiB", "30%", "50%"]
    [between] = [line.split() for line in lines if "rank 0 to 1 node-2:9092" in line]
    assert between[6:8] == ["2.1", "ms"]
    assert between[-3:] == ["4", "0", "0"]
    [link] = [line.split() for line in lines if "node-1:9091" in line]
    assert link[2:4] == ["2.1", "ms"]
    assert link[-3:] == ["4", "0", "2"]


def shown(picture: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160).print(picture)
    return stream.getvalue()


def test_bars_are_shares_of_the_largest() -> None:
    assert sparkline([0.0, 50.0, 100.0]) == " ▄█"
    assert sparkline([]) == sparkline([0.0]) == ""
