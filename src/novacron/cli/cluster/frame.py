"""What `novacron cluster top` shows of a reading: a table of replicas, and figures of all. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from novacron.cli.api_client import Json
from novacron.cli.cluster.parallel_tables import links_table, milliseconds, ranks_table
from novacron.cli.cluster.readings import Pace, Reading
from novacron.cli.cluster.status import share

_BARS = " ▁▂▃▄▅▆▇█"
_STYLES = {"ready": "green", "loading": "yellow", "draining": "yellow", "dead": "red"}
_COLUMNS = (
    "replica", "state", "epoch", "run", "wait", "queued", "tokens/s", "prompt/s", "KV", "hits",
)  # fmt: skip
_ROUTED = "sent here because of"
_WIDE = 100  # columns of a terminal that has room for that, too


def frame(
    url: str,
    now: Reading,
    speed: Pace | None,
    history: Sequence[float],
    earlier: Reading | None = None,
) -> RenderableType:
    """`history` are tokens a second, the oldest first; `earlier` is the reading before."""
    cluster = now.status["cluster"]
    num_ready = sum(one["state"] == "ready" for one in now.replicas)
    head = Text.assemble(
        (f"{url}  ", "bold"),
        (cluster["status"], "green" if cluster["status"] == "healthy" else "yellow"),
        f"  {num_ready} of {len(now.replicas)} replicas ready, {cluster['num_restarts']} restarts",
    )
    parts = (ranks_table(now, earlier), links_table(now))
    tables = [part for part in parts if part.row_count]
    below = [piece for table in tables for piece in (table, "")]
    replicas = _ReplicaTable(now.replicas, speed)
    return Group(head, "", replicas, "", *below, *_figures(now, speed, history))


@dataclass(frozen=True)
class _ReplicaTable:
    """A row for each. Why calls were sent to which stands there if the terminal is wide enough."""

    replicas: Sequence[Json]
    speed: Pace | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        is_wide = options.max_width >= _WIDE
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, name in enumerate((*_COLUMNS, _ROUTED) if is_wide else _COLUMNS):
            is_text = place in (0, 1, len(_COLUMNS))
            table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
        for one in self.replicas:
            routed = (_routed(one["routed"]),) if is_wide else ()
            table.add_row(*_row(one, self.speed), *routed)
        yield table


def _row(one: Json, speed: Pace | None) -> tuple[str | Text, ...]:
    name, state = one["replica_id"], one["state"]
    tokens = speed.tokens_per_s.get(name, 0.0) if speed else 0.0
    prompts = speed.prompt_tokens_per_s.get(name, 0.0) if speed else 0.0
    return (
        name,
        Text(state, style=_STYLES.get(state, "")),
        str(one["epoch"]),
        str(one["num_running"]),
        str(one["num_waiting"]),
        f"{one['queued_tokens']:,}",
        f"{tokens:,.0f}",
        f"{prompts:,.0f}",
        f"{one['kv_usage']:.0%}",
        share(one["hit_rate"]),
    )


def _routed(counts: dict[str, int]) -> str:
    """Shares of the calls, the largest first."""
    total = sum(counts.values())
    largest = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{why} {count / total:.0%}" for why, count in largest[:3])


def _figures(now: Reading, speed: Pace | None, history: Sequence[float]) -> list[Text]:
    if speed is None:
        return [Text("measuring ...", style="dim")]
    running = sum(one["num_running"] for one in now.replicas)
    waiting = sum(one["num_waiting"] for one in now.replicas)
    queued = sum(one["queued_tokens"] for one in now.replicas)
    lines = [
        f"{running} running, {waiting} waiting, {queued:,} prompt tokens to compute, "
        f"{speed.requests_per_s:.1f} requests/s"
        + (f", {speed.errors_per_s:.1f} errors/s" if speed.errors_per_s else ""),
        f"first token {milliseconds(speed.first_token_s)}, "
        f"p95 {milliseconds(speed.first_token_p95_s)}; "
        f"between tokens {milliseconds(speed.inter_token_s)}",
        f"{speed.all_tokens_per_s:,.0f} tokens/s  {sparkline(history)}",
    ]
    return [Text(line) for line in lines]


def sparkline(values: Sequence[float]) -> str:
    """A bar for each value, the largest being full."""
    most = max(values, default=0.0)
    if most <= 0:
        return ""
    return "".join(_BARS[round(value / most * (len(_BARS) - 1))] for value in values)
