"""What `novacron cluster top` shows of ranks and links: tables, empty if there are none. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from novacron.cli.api_client import Json
from novacron.cli.cluster.readings import Reading


def ranks_table(now: Reading, earlier: Reading | None) -> Table:
    """Since the reading before, or else since the engine's start."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rank", "stage", "steps/s", "meetings/step", "sent/s", "busy", "waited"):
        _add_column(table, name, is_name=name == "rank")
    before = {} if earlier is None else ranks_of(earlier)
    elapsed_s = 0.0 if earlier is None else now.time_s - earlier.time_s
    for (replica, number), rank in ranks_of(now).items():
        last = before.get((replica, number))
        is_same = last is not None and last["steps"] <= rank["steps"]
        done = {
            name: rank[name] - (last[name] if last is not None and is_same else 0)
            for name in ("steps", "meetings", "sent_bytes", "waited_s", "step_s")
        }
        per_s = 1 / elapsed_s if is_same and elapsed_s > 0 else None
        table.add_row(
            f"{replica} rank {number}" + (f" {rank['host']}" if rank.get("host") else ""),
            str(rank["stage"]),
            "-" if per_s is None else f"{done['steps'] * per_s:.1f}",
            f"{done['meetings'] / done['steps']:.0f}" if done["steps"] else "-",
            "-" if per_s is None else f"{_size(done['sent_bytes'] * per_s)}",
            "-" if per_s is None or not rank["step_s"] else _busy(done, per_s),
            "-" if per_s is None else f"{done['waited_s'] * per_s:.0%}",
        )
    return table


def links_table(now: Reading) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("link", "round trip", "sent", "received", "resent", "dropped", "lost"):
        _add_column(table, name, is_name=name == "link")
    for one in now.replicas:
        for name, link in _links_of(one):
            table.add_row(
                f"{name} {link['place']}",
                milliseconds(link["round_trip_s"]),
                _size(link["sent_bytes"]),
                _size(link["received_bytes"]),
                *(str(link[name]) for name in ("resent", "dropped", "lost")),
            )
    return table


def _add_column(table: Table, name: str, *, is_name: bool) -> None:
    """In a narrow terminal a name goes on in the next line, a figure never does."""
    table.add_column(name, justify="left" if is_name else "right", no_wrap=not is_name)


def _links_of(replica: Json) -> Iterator[tuple[str, Json]]:
    """To its host, and between its ranks."""
    name = replica["replica_id"]
    if replica.get("link"):
        yield name, replica["link"]
    for one in replica.get("rank_links") or ():
        yield f"{name} rank {one['rank']} to {one['peer']}", one["link"]


def _busy(done: Mapping[str, float], per_s: float) -> str:
    """The share of the time in which a rank computes. Rank 0 waits beside its steps, too."""
    return f"{max(0.0, done['step_s'] - done['waited_s']) * per_s:.0%}"


def ranks_of(reading: Reading) -> dict[tuple[str, int], Json]:
    return {
        (one["replica_id"], rank["rank"]): rank
        for one in reading.replicas
        for rank in one.get("ranks") or ()
    }


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
